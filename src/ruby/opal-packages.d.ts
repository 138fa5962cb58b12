/** Opal's packages have no types: scripts that work on the global `Opal`, see `opal.ts`. */
declare module "opal-runtime/src/opal.js";
declare module "opal-compiler/src/opal-builder.js";

/** Ruby sources of our own, as text. */
declare module "*.rb" {
  const text: string;
  export default text;
}
