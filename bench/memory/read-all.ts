/** Reads every chunk of the body, and keeps none. */
import { defineFilter } from "pmilter";

let newlines = 0;

export default defineFilter({
  body(_session, chunk) {
    for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, at + 1)) newlines += 1;
  },
  eom(session) {
    session.message.addHeader("X-Newlines", String(newlines));
    newlines = 0;
  },
});
