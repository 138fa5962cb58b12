// One operation of the store for each message.
import { defineFilter } from "pmilter";

export default defineFilter({
  name: "asks",
  async envfrom({ store }) {
    const { ok } = await store.take("all", { limit: 1_000_000_000, per: "1d" });
    if (!ok) throw new Error("the limit has been reached");
  },
});
