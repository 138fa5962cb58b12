/** The ten handlers as a single filter, as in a chain. */
import { defineFilter } from "pmilter";
import body from "../handlers/body.ts";
import close from "../handlers/close.ts";
import connect from "../handlers/connect.ts";
import data from "../handlers/data.ts";
import envfrom from "../handlers/envfrom.ts";
import envrcpt from "../handlers/envrcpt.ts";
import eoh from "../handlers/eoh.ts";
import eom from "../handlers/eom.ts";
import header from "../handlers/header.ts";
import helo from "../handlers/helo.ts";

export default defineFilter({
  name: "all",
  connect,
  helo,
  envfrom,
  envrcpt,
  data,
  header,
  eoh,
  body,
  eom,
  close,
});
