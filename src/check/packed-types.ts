/**
 * The declarations of Bun, Node and valibot within the binary, which needs no `node_modules`. Packing them takes a second:
 * load it only there.
 */
import { packBunTypes } from "./bun-types.ts" with { type: "macro" };
import { packValibotTypes } from "./valibot-types.ts" with { type: "macro" };

export const PACKED_BUN_TYPES: string = packBunTypes();
export const PACKED_VALIBOT_TYPES: string = packValibotTypes();
