/** Takes its time for every chunk of the body: more of it arrives than is worked on. */
import { defineFilter } from "pmilter";

export default defineFilter({
  async body() {
    await Bun.sleep(1);
  },
  eom() {},
});
