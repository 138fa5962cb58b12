/** Authentication-Results that a sender wrote in our name (RFC 8601 5). */
import type { Header } from "pmilter";

export function isResults({ name }: Header): boolean {
  return name.trim().toLowerCase() === "authentication-results";
}

/** Whether a reader of Authentication-Results may take it for one of that server. */
export function isInNameOf(value: string, id: string): boolean {
  const wanted = plain(id);
  const front = frontOf(value);
  // With a quote or a comment that does not end, readers differ.
  if (front === null) return plain(value).includes(wanted);
  // Behind it may be a version.
  const [word = ""] = front.trim().split(/[\s/=]+/);
  return plain(word) === wanted;
}

function plain(text: string): string {
  return text.toLowerCase().replaceAll(/[^!-~]|\.$/g, "");
}

/** What stands before the first semicolon, without comments and quotes; null if one of them does not end. */
function frontOf(value: string): string | null {
  let front = "";
  let depth = 0;
  let isQuoted = false;
  for (let at = 0; at < value.length; at++) {
    const letter = value[at]!;
    if (letter === "\\" && (isQuoted || depth > 0)) {
      at += 1;
      if (depth === 0) front += value[at] ?? "";
    } else if (isQuoted) {
      if (letter === '"') isQuoted = false;
      else front += letter;
    } else if (letter === "(") {
      depth += 1;
      front += " ";
    } else if (depth > 0) {
      if (letter === ")") depth -= 1;
    } else if (letter === '"') isQuoted = true;
    else if (letter === ";") return front;
    else front += /[!-~]/.test(letter) ? letter : " ";
  }
  return isQuoted || depth > 0 ? null : front;
}
