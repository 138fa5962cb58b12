/**
 * What the types of Bun leave out, though Bun has it. `bun run check` fails at the first line that the types have learnt:
 * then a cast can go, see docs/bun.md, "Types".
 */

export function listenerDescriptor(listener: Bun.SocketListener<undefined>): number {
  // @ts-expect-error -- the descriptor of a listener: src/net/bun-listen.ts
  return listener.fd;
}

export function socketDescriptor(socket: Bun.Socket<undefined>): number {
  // @ts-expect-error -- the descriptor of a socket: src/net/bun-listen.ts
  return socket.fd;
}

export function listenByDescriptor(fd: number, socket: Bun.SocketHandler<undefined>): unknown {
  // @ts-expect-error -- listening by a descriptor: src/net/bun-listen.ts
  return Bun.listen({ fd, socket });
}

export function adoptDescriptor(fd: number, socket: Bun.SocketHandler<undefined>): unknown {
  // @ts-expect-error -- a connection by its descriptor: src/net/adopt.ts
  return Bun.connect({ fd, socket });
}

export function supplementaryGroups(user: string, group: number): void {
  // @ts-expect-error -- src/server/rights/privileges.ts
  process.initgroups(user, group);
}
