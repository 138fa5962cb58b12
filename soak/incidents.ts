/** When workers were, or may have been, lost to a fault that the soak made: only then is a bystander excused. Pure. */

interface Incident {
  readonly from: number;
  /** Infinity while it lasts. */
  to: number;
}

export class Incidents {
  #recent: Incident[] = [];
  readonly #keepMs: number;
  count = 0;

  /** @param keepMs no question goes back further */
  constructor(keepMs: number) {
    this.#keepMs = keepMs;
  }

  /** An incident begins; call the returned function when it is over. */
  begin(from: number): (to: number) => void {
    const incident: Incident = { from, to: Number.POSITIVE_INFINITY };
    this.#recent = this.#recent.filter(({ to }) => to >= from - this.#keepMs);
    this.#recent.push(incident);
    this.count += 1;
    return (to) => {
      incident.to = to;
    };
  }

  /** How many there were at any time from `from` to `to`. */
  during(from: number, to: number): number {
    return this.#recent.reduce((sum, each) => sum + (each.from <= to && each.to >= from ? 1 : 0), 0);
  }
}
