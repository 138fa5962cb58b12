/** The declarations of the module "pmilter", as text. */
import { declarations } from "./declarations.ts" with { type: "macro" };

export const API_TYPES: string = declarations();
