/**
 * Gives an open socket to Bun by its descriptor, which Bun closes with the socket from then on. The types of Bun 1.4.5 lack
 * this overload of `Bun.connect` (docs/bun.md, "Types").
 */
export const adopt = Bun.connect as unknown as <Data = undefined>(options: {
  readonly fd: number;
  readonly socket: Bun.SocketHandler<Data>;
  readonly data: Data;
}) => Promise<Bun.Socket<Data>>;
