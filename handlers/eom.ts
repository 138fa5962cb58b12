// eom: the end of the message, where it may be changed. The counterpart of the original's eom.rb, as its acceptance
// tests expect it.
import type { Session } from "pmilter";

export default function eom(session: Session<"eom">) {
  const { message } = session;
  console.log(`myhostname: ${session.myHostname}`);
  console.log(`message_id: ${session.queueId}`);
  console.log(`reveive_time: ${ctime(message.receivedAt)}`);
  message.addHeader("X-Pmilter", "Enable");
  console.log("add_header(X-Pmilter:True): Enable");

  if (message.sender.address === "change-from@example.com") message.changeFrom("<new-from@example.com>");
  if (message.recipients.some((recipient) => recipient.address === "add-to@example.com")) {
    message.addRecipient("<new-to@example.com>");
  }
}

/** `Wed Nov 02 21:02:15 2016`, in local time. */
function ctime(date: Date): string {
  const [weekday, month, day, year] = date.toDateString().split(" ");
  return `${weekday} ${month} ${day} ${date.toTimeString().slice(0, 8)} ${year}`;
}
