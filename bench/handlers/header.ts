/** header: reads the values that `handlers/header.ts` prints, and prints nothing. */
import type { Session } from "pmilter";
import { keep } from "./keep.ts";

export default function header(_session: Session<"header">, name: string, value: string) {
  keep(name, value);
}
