// Awaits once for each message, as the filters beside it.
import { defineFilter } from "pmilter";

export default defineFilter({
  name: "asks",
  async envfrom() {
    await Promise.resolve();
  },
});
