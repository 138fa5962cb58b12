/** The rules of verdicts, for each giver, place and kind: the whole table, and what must hold for all of it. */
import { describe, expect, test } from "bun:test";
import { FALLBACKS } from "../../src/handler/fallback.ts";
import {
  carriesPending,
  type Effect,
  effectOf,
  FALLBACK_VERDICTS,
  fallbackAt,
  type Giver,
  type Place,
  placeOf,
} from "../../src/handler/rules.ts";
import { PHASE_LIST, PHASES } from "../../src/protocol/phases.ts";
import type { VerdictKind } from "../../src/protocol/verdicts.ts";

const GIVERS: readonly Giver[] = ["enforce", "observe", "limit"];
const KINDS: readonly VerdictKind[] = ["accept", "reject", "tempfail", "discard", "skip"];
const PLACES: readonly Place[] = [
  "connection",
  "message",
  "recipient",
  "local recipient",
  "rejected recipient",
  "none",
];

/** Kinds that a phase of the place has, and fallbacks can have. */
function kindsAt(place: Place): readonly VerdictKind[] {
  const scope = place.endsWith("recipient") ? "recipient" : place;
  return KINDS.filter((kind) => PHASE_LIST.some((phase) => phase.scope === scope && phase.verdicts.includes(kind)));
}

/** An effect in a few words. */
function inWords({ accepts, decides, leaves, observed, waits }: Effect): string {
  const words = [
    accepts ? "accepts" : "",
    leaves === "nothing" ? "" : `leaves ${leaves}`,
    decides === null ? "" : `decides ${decides}${waits ? " later" : ""}`,
    observed === null ? "" : `would decide ${observed}`,
  ];
  return words.filter((word) => word !== "").join(", ") || "-";
}

/** Giver, place: what each kind that the place has does. */
const EXPECTED: readonly (readonly [Giver, Place, Partial<Record<VerdictKind, string>>])[] = [
  ["enforce", "connection", { accept: "accepts, leaves connection", ...refusing("decides connection") }],
  [
    "enforce",
    "message",
    {
      accept: "accepts, leaves message",
      ...refusing("decides message"),
      discard: "decides message",
      skip: "leaves body",
    },
  ],
  [
    "enforce",
    "recipient",
    { accept: "accepts, leaves message", ...refusing("decides recipient"), discard: "decides message" },
  ],
  [
    "enforce",
    "local recipient",
    { accept: "accepts, leaves message", ...refusing("decides message later"), discard: "decides message" },
  ],
  ["enforce", "rejected recipient", { accept: "-", ...refusing("-"), discard: "-" }],
  ["enforce", "none", refusing("decides command")],
  [
    "observe",
    "connection",
    { accept: "accepts, leaves connection", ...refusing("leaves connection, would decide connection") },
  ],
  [
    "observe",
    "message",
    {
      accept: "accepts, leaves message",
      ...refusing("leaves message, would decide message"),
      discard: "leaves message, would decide message",
      skip: "leaves body",
    },
  ],
  ...(["recipient", "local recipient"] as const).map(
    (place) =>
      [
        "observe",
        place,
        {
          accept: "accepts, leaves message",
          ...refusing("would decide recipient"),
          discard: "leaves message, would decide message",
        },
      ] as const,
  ),
  ["observe", "rejected recipient", { accept: "-", ...refusing("-"), discard: "-" }],
  ["observe", "none", refusing("would decide command")],
  ["limit", "connection", { accept: "decides connection", ...refusing("decides connection") }],
  ["limit", "message", { accept: "decides message", ...refusing("decides message") }],
  ...(["recipient", "local recipient", "rejected recipient"] as const).map(
    (place) => ["limit", place, { accept: "decides message", ...refusing("decides message later") }] as const,
  ),
  ["limit", "none", refusing("-")],
];

function refusing(words: string): { reject: string; tempfail: string } {
  return { reject: words, tempfail: words };
}

test("every giver and place has one row here", () => {
  const rows = EXPECTED.map(([giver, place]) => `${giver} ${place}`);
  expect(rows.toSorted()).toEqual(GIVERS.flatMap((giver) => PLACES.map((place) => `${giver} ${place}`)).toSorted());
});

describe.each(EXPECTED)("%s, %s", (giver, place, expected) => {
  // A limit gives fallbacks alone.
  const kinds = kindsAt(place).filter((kind) => giver !== "limit" || (kind !== "discard" && kind !== "skip"));

  test("every verdict that the place has is expected to do something", () => {
    expect(Object.keys(expected).toSorted()).toEqual(kinds.toSorted());
  });

  test.each(kinds)("%s", (kind) => {
    expect(inWords(effectOf(giver, place, kind))).toBe(expected[kind]!);
  });
});

describe.each(GIVERS)("%s, in every place", (giver) => {
  const effects = PLACES.flatMap((place) => KINDS.map((kind) => effectOf(giver, place, kind)));

  test("only a verdict on the message waits", () => {
    expect(effects.filter(({ decides, waits }) => waits && decides !== "message")).toEqual([]);
  });

  test("a filter that decides for all leaves nothing of its own, and what is observed decides nothing", () => {
    expect(effects.filter(({ decides, leaves }) => decides !== null && leaves !== "nothing")).toEqual([]);
    expect(effects.filter(({ decides, observed }) => decides !== null && observed !== null)).toEqual([]);
  });

  test("the same effect is the same object: an effect costs no allocation", () => {
    for (const place of PLACES) {
      for (const kind of KINDS) expect(effectOf(giver, place, kind)).toBe(effectOf(giver, place, kind));
    }
  });
});

test("a verdict that counts ends the phase or its filter's part; in observe mode it decides nothing", () => {
  for (const place of PLACES) {
    for (const kind of kindsAt(place)) {
      const counts = effectOf("enforce", place, kind);
      if (place !== "rejected recipient") expect(counts.decides !== null || counts.leaves !== "nothing").toBe(true);
      expect(effectOf("observe", place, kind).decides).toBeNull();
    }
  }
});

describe.each(PHASE_LIST)("$name", (phase) => {
  test("a verdict is given on the scope of its phase, a recipient apart", () => {
    const places = [false, true].flatMap((isRejected) =>
      [false, true].map((isLocal) => placeOf(phase, isRejected, isLocal)),
    );
    const expected: Place[] =
      phase === PHASES.envrcpt
        ? ["recipient", "local recipient", "rejected recipient", "rejected recipient"]
        : [phase.scope, phase.scope, phase.scope, phase.scope];
    expect(places).toEqual(expected);
  });

  test("its reply carries a pending verdict if it is about the message", () => {
    const isAboutMessage = ["envfrom", "data", "header", "eoh", "body", "eom"].includes(phase.name);
    expect(carriesPending(phase, false)).toBe(isAboutMessage);
    expect(carriesPending(phase, true)).toBe(phase === PHASES.eom);
  });

  test.each(FALLBACKS)("the fallback %s is a verdict that the phase has, or none", (fallback) => {
    const used = fallbackAt(phase, fallback);
    const decides = ["connection", "message", "recipient"].includes(phase.scope);
    expect(used).toBe(decides ? fallback : "none");
    const verdict = FALLBACK_VERDICTS[used];
    if (!decides || fallback === "continue") expect(verdict).toBeNull();
    else {
      expect(verdict?.kind).toBe(fallback);
      expect(phase.verdicts as readonly string[]).toContain(fallback);
    }
  });
});
