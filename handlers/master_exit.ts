// master_exit: runs once when the server ends.
export default function masterExit() {
  console.log("pmilter: bye");
}
