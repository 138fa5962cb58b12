/** The services thread, which ends when the key `die` is asked for, and is busy for a while at the key `busy`. */
import type { ToServices, ToServicesThread } from "../../src/shared/service-messages.ts";

const scope = globalThis as unknown as { onmessage: (event: { readonly data: ToServicesThread }) => void };
const early: { readonly data: ToServicesThread }[] = [];
scope.onmessage = (event) => void early.push(event);
await import("../../src/services/entry.ts");
const real = scope.onmessage;
scope.onmessage = (event) => {
  if (event.data.kind === "worker") {
    const { port } = event.data;
    port.addEventListener("message", (message) => {
      const calls = (message as MessageEvent).data as ToServices;
      const asks = (key: string): boolean =>
        calls.some((call) => call.kind === "store" && "key" in call.operation && call.operation.key === key);
      if (asks("die")) throw new Error("killed by the test");
      if (asks("busy")) Bun.sleepSync(300);
    });
  }
  real(event);
};
for (const event of early) scope.onmessage(event);
