/** eoh: the shipped examples have none; reads the name of the phase. */
import type { Session } from "pmilter";
import { keep } from "./keep.ts";

export default function eoh(session: Session<"eoh">) {
  keep(session.phase);
}
