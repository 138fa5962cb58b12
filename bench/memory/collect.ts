/** Has the whole body at the end: what the others are to be compared with. */
import { defineFilter } from "pmilter";

export default defineFilter({
  collectBody: true,
  eom(session) {
    session.message.addHeader("X-Bytes", String(session.message.body().length));
  },
});
