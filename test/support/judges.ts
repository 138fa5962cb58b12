/** Mail readers by others, which say what parts a message has: see judges/judge.ts. */
export { hashOf, type Judge, type JudgeSource, type Leaf } from "./judges/judge.ts";
export { MAILPARSER, MAILSPLIT, POSTAL_MIME } from "./judges/packages.ts";
export { PERL, PYTHON, RIPMIME } from "./judges/programs.ts";
