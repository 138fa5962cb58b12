// Collects the body of each message, reads its length, and adds the header of bench/handlers.
import { defineFilter } from "pmilter";
import { keepNumber } from "../handlers/keep.ts";

export default defineFilter({
  name: "collect",
  collectBody: true,
  eom({ message }) {
    keepNumber(message.body().length);
    message.addHeader("X-Pmilter", "Enable");
  },
});
