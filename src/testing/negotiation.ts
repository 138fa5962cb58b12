/**
 * Judges a filter's answer to OPTNEG as the mail server does: pure, from offer and answer to the options in force.
 */
import { ACTION, namesOf, PROTOCOL, VERSION_1_ACTIONS, VERSION_1_PROTOCOL } from "../protocol/constants.ts";
import type { OptnegReply } from "../protocol/replies.ts";
import { effectiveMacroLists, type Habit, type MacroStage, type Offer } from "./habits.ts";

/** The options in force after the negotiation. */
export interface Negotiated {
  readonly version: number;
  /** `SMFIF_*` that the filter may use. */
  readonly actions: number;
  /** `SMFIP_*` in force, with NOUNKNOWN and NODATA added where the version lacks these events. */
  readonly protocol: number;
  /** HDR_LEADSPC: header values keep the space after the colon, both ways. */
  readonly leadingSpace: boolean;
  /** The macro names sent at each stage. */
  readonly macros: Readonly<Record<MacroStage, readonly string[]>>;
}

/**
 * @returns the options in force, or the reason why a server of that habit refuses the filter: a version below 2 or above the
 *   offer's, an action that was not offered, macro lists without SETSYMLIST, and with Sendmail a protocol flag
 *   that was not offered (Postfix passes over it)
 */
export function judgeAnswer(habit: Habit, offer: Offer, answer: OptnegReply): Negotiated | string {
  const offeredActions = offer.actions === 0 ? VERSION_1_ACTIONS : offer.actions;
  const offeredProtocol = offer.protocol === 0 ? VERSION_1_PROTOCOL : offer.protocol;
  const { version, actions } = answer;
  if (version < 2 || version > offer.version) return `version ${version}, expected 2 to ${offer.version}`;
  const extraActions = (actions & ~offeredActions) >>> 0;
  if (extraActions !== 0) return `actions that were not offered: ${namesOf(ACTION, extraActions).join(" ")}`;
  const extraProtocol = (answer.protocol & ~offeredProtocol) >>> 0;
  if (extraProtocol !== 0 && habit === "sendmail") {
    return `protocol flags that were not offered: ${namesOf(PROTOCOL, extraProtocol).join(" ")}`;
  }
  if (answer.lists.length > 0 && (actions & ACTION.SETSYMLIST) === 0)
    return "macro lists without the action SETSYMLIST";
  let protocol = (answer.protocol & offeredProtocol) >>> 0;
  if (version < 3) protocol |= PROTOCOL.NOUNKNOWN;
  if (version < 4) protocol |= PROTOCOL.NODATA;
  const leadingSpace = (protocol & PROTOCOL.HDR_LEADSPC) !== 0;
  return { version, actions, protocol, leadingSpace, macros: effectiveMacroLists(habit, answer.lists) };
}
