// A handler for each phase of bench/handlers, and nothing in them, for the cost of the calls alone.
import { defineFilter } from "pmilter";

function nothing() {}

export default defineFilter({
  name: "empty",
  connect: nothing,
  helo: nothing,
  envfrom: nothing,
  envrcpt: nothing,
  data: nothing,
  header: nothing,
  eoh: nothing,
  body: nothing,
  eom: nothing,
  close: nothing,
});
