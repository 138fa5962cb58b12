/** Has the whole body at the end: the base for comparison. */
import { defineFilter } from "pmilter";

export default defineFilter({
  collectBody: true,
  eom(session) {
    session.message.addHeader("X-Bytes", String(session.message.body().length));
  },
});
