// A filter: any phases in one file. It refuses one sender and stamps every message that passes.
import { defineFilter, reject } from "pmilter";

export default defineFilter({
  name: "stamp",
  envfrom(_session, sender) {
    if (sender === "<spam@example.com>") return reject("550 5.7.1 Not welcome here");
  },
  eom(session) {
    session.message.addHeader("X-Filtered-By", "pmilter");
  },
});
