/** The services thread: started when a worker first asks for it, and served until the server ends. */
import type { FromServicesThread, ToServicesThread } from "../shared/service-messages.ts";
import { Services } from "./services.ts";

interface ServicesScope {
  onmessage: (event: { readonly data: ToServicesThread }) => void;
  postMessage(message: FromServicesThread): void;
}
declare const self: ServicesScope;

let services: Services | null = null;

self.onmessage = ({ data }) => {
  if (data.kind === "settings") {
    const { dns, folder, store } = data;
    services = new Services(dns, store, {
      folder,
      dropped: (count) => self.postMessage({ kind: "dropped", count }),
      log: (level, text) => self.postMessage({ kind: "log", level, text }),
    });
  } else services!.serve(data.port);
};
