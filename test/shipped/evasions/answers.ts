/** What the filter `attachments` says of evasions. */
import attachments from "../../../handlers/attachments.ts";
import { runFilter } from "../../../src/testing/index.ts";
import type { Evasion } from "./all.ts";

/** The options that let nothing pass that the filter cannot look into. */
export const STRICT: Readonly<Record<string, unknown>> = { allow_encrypted: false, allow_unlisted: false };

/** The text of each refusal, `""` for a message that passes. */
export async function answersTo(
  evasions: readonly Evasion[],
  options: Readonly<Record<string, unknown>> = {},
): Promise<ReadonlyMap<Evasion, string>> {
  const answers = new Map<Evasion, string>();
  for (const evasion of evasions) {
    const mail = { from: "a@example.com", to: ["b@example.com"], eml: evasion.eml, options };
    const { failures, reply, verdict } = await runFilter(attachments, mail);
    if (failures.length > 0) throw new Error(`${evasion.kind}, ${evasion.name}: ${failures[0]!.message}`);
    if (verdict !== "accept" && verdict !== "reject") throw new Error(`${evasion.kind}, ${evasion.name}: ${verdict}`);
    answers.set(evasion, verdict === "accept" ? "" : reply!.lines.join(" "));
  }
  return answers;
}
