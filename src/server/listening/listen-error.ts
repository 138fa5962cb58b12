/** Why an address cannot be listened on, in an administrator's words. */
import { PlainError } from "../../errors.ts";

/** An address cannot be listened on. The message is for the administrator; `cause` is the system's error. */
export class ListenError extends PlainError {
  override readonly name = "ListenError";
  readonly code = "PMILTER_ERR_LISTEN";
}
