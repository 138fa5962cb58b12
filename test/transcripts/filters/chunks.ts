/** A filter that wants one chunk of the body, and says in a header how many it got, and of how many headers it knows. */
import { defineFilter, skip } from "pmilter";

export default defineFilter<{ chunks?: number }>({
  body({ state }) {
    state.chunks = (state.chunks ?? 0) + 1;
    return skip();
  },
  eom({ state, message }) {
    message.addHeader("X-Chunks", `${state.chunks ?? 0} of a body with ${message.headers.length} headers`);
  },
});
