/** Whether this is the compiled binary: its code lies in a file system of its own. */
export const IS_COMPILED: boolean = import.meta.path.startsWith("/$bunfs/");
