/** Where a filter runs and what it saves elsewhere, for `pmilter check`. */
import { formatNetwork } from "../config/address.ts";
import { ALL_DRAWS, CONDITIONS, type When } from "../handler/conditions.ts";
import { type ChainNeeds, needsOf } from "../handler/needs.ts";
import { PHASE_LIST } from "../protocol/phases.ts";

/**
 * @param index the filter's place in the chain
 * @returns lines without indentation; none for a filter without conditions
 */
export function describeConditions(when: When | null, index: number, { all, deferContent }: ChainNeeds): string[] {
  if (when === null) return [];
  const given = CONDITIONS.filter(({ name }) => when[name] !== null);
  const hasRecipients = when.recipients !== null || when.notRecipients !== null;
  const words = given.map(({ key, name }) => `${key} = ${valueInWords(name, when)}`);
  if (hasRecipients) words.push(`recipients_match = "${when.recipientsMatch}"`);
  if (words.length === 0) return ["when: no condition is given, so it runs everywhere"];
  const lines = [`when ${words.join(", ")}`];
  if (given.some(({ knownAt }) => knownAt === "negotiation")) {
    const others = all.filter((_, other) => other !== index);
    lines.push(`saves in sessions without it: ${saved(needsOf(all, deferContent), needsOf(others, deferContent))}`);
  }
  const later = given.filter(({ knownAt }) => knownAt !== "negotiation");
  if (later.length > 0) {
    const keys = later.map(({ key }) => key).join(" or ");
    const body = all[index]?.collectsBody === true ? ", and the body is not collected for it" : "";
    lines.push(`saves where ${keys} does not hold: its handlers are not called${body}; events are sent all the same`);
  }
  return lines;
}

function valueInWords(name: (typeof CONDITIONS)[number]["name"], when: When): string {
  const value = when[name];
  if (name === "share") return `"${Number(value) / (ALL_DRAWS / 100)}%"`;
  if (!Array.isArray(value)) return String(value);
  const entries = value as readonly (string | Parameters<typeof formatNetwork>[0])[];
  return `[${entries.map((entry) => `"${typeof entry === "string" ? entry : formatNetwork(entry)}"`).join(", ")}]`;
}

type Needs = ReturnType<typeof needsOf>;

/** The events that the mail server does not send, or does not wait for, without the filter. */
function saved(whole: Needs, without: Needs): string {
  const phases = PHASE_LIST.map(({ name }) => name).filter((name) => name !== "abort" && name !== "close");
  const unsent = phases.filter((name) => whole[name] !== "none" && without[name] === "none");
  const unanswered = phases.filter(
    (name) => whole[name] === "reply" && ["context", "deferred"].includes(without[name]),
  );
  const parts = [
    ...(unsent.length === 0 ? [] : [`${unsent.join(" ")} not sent`]),
    ...(unanswered.length === 0 ? [] : [`${unanswered.join(" ")} sent without waiting`]),
  ];
  return parts.join(", ") || "no event, since other filters need the same; its handlers are not called";
}
