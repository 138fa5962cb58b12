/** Opal's packages have no types: scripts that work on the global `Opal`, see `opal.ts`. */
declare module "opal-runtime/src/opal.js";
declare module "opal-compiler/src/opal-builder.js";
