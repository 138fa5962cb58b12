// postconfig: runs once at each successful load of the configuration.
export default function postconfig() {
  console.log("pmilter: configuration loaded");
}
