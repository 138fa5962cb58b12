/** The project's targets that `wire` measures. Pure. */
import type { Spread } from "../support/stats.ts";
import type { Target } from "../support/target.ts";
import { type Figures, loadName, type WireLoad } from "./figures.ts";
import type { Measurement } from "./load.ts";
import { BARE_EOM, EOM_ONLY, TEN } from "./variants.ts";

/** The variants that the targets compare with, by name; null without. */
export interface TargetBases {
  readonly libmilter: string | null;
  readonly bareC: string | null;
}

/** Numbers of connections that the targets name. */
const CONNECTIONS = { busy: [20, 200], crowded: 200 } as const;

/**
 * @param main the load that CPU is quoted from
 * @param loads all with the fixed mail
 */
export function targetsOf(
  figures: Figures,
  main: WireLoad,
  loads: readonly WireLoad[],
  { libmilter, bareC }: TargetBases,
): readonly Target[] {
  const versus = (base: string | null, load: WireLoad | undefined, key: keyof Measurement, name = TEN.name) => {
    const figure = base === null || load === undefined ? null : figures.ratio(name, base, load, key);
    return { figure, note: figure === null || load === undefined ? "not in this run" : loadName(load) };
  };
  const all = worst(figures, loads, "perSecond", "least");
  const crowded = loads.filter(({ connections }) => connections === CONNECTIONS.crowded);
  const replies = worst(figures, crowded, "p99", "greatest");
  return [
    {
      what: "ten handlers: CPU per message / C on libmilter",
      bound: ["at most", 0.15],
      ...versus(libmilter, main, "cpuMicros"),
    },
    ...CONNECTIONS.busy.map((connections): Target => {
      const load = loads.find(
        (load) => load.connections === connections && load.messagesPerConnection === main.messagesPerConnection,
      );
      return {
        what: `ten handlers: messages/s / C on libmilter, ${connections} connections`,
        bound: ["at least", 6],
        ...versus(libmilter, load, "perSecond"),
      };
    }),
    { what: "ten handlers: messages/s / the peer and load where it is least", bound: ["above", 1], ...all },
    {
      what: "ten handlers: CPU per message / bare C loop that answers all",
      bound: ["at most", 0.6],
      ...versus(bareC, main, "cpuMicros"),
    },
    {
      what: "eom only: CPU per message / bare Bun loop of the same negotiation",
      bound: ["at most", 1.5],
      ...versus(BARE_EOM.name, main, "cpuMicros", EOM_ONLY.name),
    },
    {
      what: `ten handlers: reply p99 at ${CONNECTIONS.crowded} connections / the peer and load where it is greatest`,
      bound: ["below", 1],
      ...replies,
    },
  ];
}

/** The least favourable ratio of the ten handlers to a peer (limits are none) under any of the loads. */
function worst(
  figures: Figures,
  loads: readonly WireLoad[],
  key: keyof Measurement,
  which: "least" | "greatest",
): { readonly figure: Spread | null; readonly note: string } {
  let found: { figure: Spread; note: string } | null = null;
  let pairs = 0;
  for (const load of loads) {
    for (const { name, role } of figures.variants(load)) {
      const figure = role === "peer" ? figures.ratio(TEN.name, name, load, key) : null;
      if (figure === null) continue;
      pairs += 1;
      const isWorse =
        found === null ||
        (which === "least" ? figure.median < found.figure.median : figure.median > found.figure.median);
      if (isWorse) found = { figure, note: `${name}, ${loadName(load)}` };
    }
  }
  return found === null
    ? { figure: null, note: "not in this run" }
    : { figure: found.figure, note: `${found.note} (of ${pairs} pairs of peer and load)` };
}
