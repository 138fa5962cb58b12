/** A filter that adds a header with what it has seen of the message, and of the session so far. */
import { defineFilter } from "pmilter";

interface Counts {
  messages?: number;
  aborts?: number;
}

export default defineFilter<Counts, { readonly name?: string }>({
  collectBody: true,
  envfrom({ state }) {
    state.messages = (state.messages ?? 0) + 1;
  },
  abort({ state }) {
    state.aborts = (state.aborts ?? 0) + 1;
  },
  eom({ client, helo, message, state, options }) {
    const { sender, recipients, headers } = message;
    const names = [...headers].map(({ name }) => name).join(" ");
    message.addHeader(
      options.name ?? "X-Report",
      [
        `client=${client.hostname} helo=${helo} from=${sender.raw}`,
        `to=${recipients.map(({ raw }) => raw).join(",")} headers=${names}`,
        `body=${message.body().length} messages=${state.messages} aborts=${state.aborts ?? 0}`,
      ].join("\n\t"),
    );
  },
});
