// One question to the DNS for each message, the same: all but the first are answered by the cache.
import { defineFilter } from "pmilter";

export default defineFilter({
  name: "asks",
  async envfrom({ dns }) {
    const { status } = await dns.txt("x.example");
    if (status !== "found") throw new Error(status);
  },
});
