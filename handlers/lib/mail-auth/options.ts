/** The options of mail-auth.ts. */
import { array, boolean, duration, type InferOutput, picklist, pipe, string, table, transform } from "pmilter/options";
import { domains, made, option, refusalOf, someText, unset } from "../options.ts";
import { OWN_NETWORKS } from "../origin.ts";
import { unknownPlaceholder } from "../words.ts";
import { CHECKS } from "./check.ts";

export const ACTIONS = ["mark", "quarantine", "tempfail", "reject"] as const;
export type Action = (typeof ACTIONS)[number];

function action(meaning: string) {
  return option(picklist(ACTIONS), "mark", meaning);
}

const TEXTS = {
  dmarc_reject_text: ["reject", "550 5.7.26 DMARC failed for {domain}, which asks to refuse such mail"],
  dmarc_tempfail_text: ["tempfail", "451 4.7.26 DMARC failed for {domain}, try again later"],
  spf_reject_text: ["reject", "550 5.7.23 SPF: {domain} does not permit {client}"],
  spf_tempfail_text: ["tempfail", "451 4.7.23 SPF: {domain} does not permit {client}, try again later"],
} as const;

const entries = {
  authserv_id: unset(someText(), "the mail server's name", "the name in front of the results in the header"),
  checks: option(
    pipe(
      array(picklist(CHECKS)),
      transform((checks) => new Set(checks)),
    ),
    [...CHECKS],
    "the checks whose results are wanted; for DMARC, SPF and DKIM are done in any case",
  ),
  trusted_sealers: option(
    domains(),
    [],
    "domains whose ARC seals are believed: a message that they found good may fail DMARC",
  ),
  policy: option(
    table({
      dmarc_reject: action("a message fails DMARC, and the domain in From asks to refuse such mail"),
      dmarc_quarantine: action("the same, where the domain asks to quarantine it"),
      spf_fail: action("SPF fails for the sender, and DMARC does not pass"),
    }),
    {},
    "what happens to a message that fails; `mark`: the header says it, and nothing else",
  ),
  own_networks: OWN_NETWORKS,
  early_spf: option(
    boolean(),
    false,
    "wait for SPF at RCPT, so that filters behind this one have its result there, as `greylist`",
  ),
  timeout: option(
    duration(),
    "5s",
    "how long the end of a message may wait for answers; then they are temporary errors. Less than `handler_timeout`",
  ),
  dmarc_reject_text: option(string(), TEXTS.dmarc_reject_text[1], "the reply of `reject` for DMARC"),
  dmarc_tempfail_text: option(string(), TEXTS.dmarc_tempfail_text[1], "the reply of `tempfail` for DMARC"),
  spf_reject_text: option(string(), TEXTS.spf_reject_text[1], "the reply of `reject` for SPF"),
  spf_tempfail_text: option(string(), TEXTS.spf_tempfail_text[1], "the reply of `tempfail` for SPF"),
};

const PLACEHOLDERS = ["domain", "client"];

export const options = made(table(entries), (given, fail) => {
  for (const [key, [kind]] of Object.entries(TEXTS) as [keyof typeof TEXTS, (typeof TEXTS)[keyof typeof TEXTS]][]) {
    const unknown = unknownPlaceholder(given[key], PLACEHOLDERS);
    if (unknown !== null) fail(key, `{domain} and {client} as placeholders, not ${unknown}`);
    const sample = refusalOf(kind, given[key].replaceAll(/\{\w+\}/g, "x"));
    if (typeof sample === "string") fail(key, sample);
  }
  return given;
});

export type Options = InferOutput<typeof options>;
