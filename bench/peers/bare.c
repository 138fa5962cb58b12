/*
 * The limit of answering everything: a C process with a single thread, whose epoll loop frames packets and answers each
 * command: CONTINUE to everything and an added header at the end of a message. It asks for every event and switches
 * no reply off. It reads no payload, and is no filter.
 *
 * Argument: the socket's path.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { READ_BYTES = 256 * 1024, OUT_BYTES = 256 * 1024, EVENTS = 64 };

/* Version 6, every action, no protocol flag. */
static const char ANSWER[] = "\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\0\0\0";
static const char CONTINUE[] = "\0\0\0\x01" "c";
static const char END[] = "\0\0\0\x12" "hX-Pmilter\0Enable\0" "\0\0\0\x01" "c";

struct connection {
	int fd;
	/* The beginning of a packet whose end has not come. */
	size_t length;
	char *rest;
};

static char input[READ_BYTES];
static char output[OUT_BYTES];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void finish(struct connection *connection)
{
	close(connection->fd);
	free(connection->rest);
	free(connection);
}

/* Answers whole packets; the number of bytes they take, or -1 after QUIT. */
static ssize_t answer(struct connection *connection, const char *bytes, size_t length)
{
	size_t at = 0, used = 0;
	int is_over = 0;

	while (!is_over && length - at > 4) {
		uint32_t size;
		memcpy(&size, bytes + at, 4);
		size = ntohl(size);
		if (length - at - 4 < size)
			break;
		const char *reply = CONTINUE;
		size_t reply_length = sizeof CONTINUE - 1;
		switch (bytes[at + 4]) {
		case 'O':
			reply = ANSWER;
			reply_length = sizeof ANSWER - 1;
			break;
		case 'E':
			reply = END;
			reply_length = sizeof END - 1;
			break;
		case 'D':
		case 'A':
			reply_length = 0;
			break;
		case 'Q':
			is_over = 1;
			reply_length = 0;
			break;
		}
		if (used + reply_length > OUT_BYTES)
			fail("more replies than fit, from one read");
		memcpy(output + used, reply, reply_length);
		used += reply_length;
		at += 4 + size;
	}
	if (used > 0 && write(connection->fd, output, used) != (ssize_t)used)
		return -1;
	return is_over ? -1 : (ssize_t)at;
}

static void readable(struct connection *connection)
{
	size_t held = connection->length;
	ssize_t got, taken;

	memcpy(input, connection->rest, held);
	got = read(connection->fd, input + held, READ_BYTES - held);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0 || (taken = answer(connection, input, held + (size_t)got)) < 0) {
		finish(connection);
		return;
	}
	connection->length = held + (size_t)got - (size_t)taken;
	if (connection->length == READ_BYTES)
		fail("a packet that does not fit");
	if (connection->length > held && (connection->rest = realloc(connection->rest, connection->length)) == NULL)
		fail("realloc");
	memcpy(connection->rest, input + taken, connection->length);
}

int main(int count, char **arguments)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct epoll_event event = { .events = EPOLLIN }, events[EVENTS];
	int listener, poll;

	if (count != 2 || strlen(arguments[1]) >= sizeof address.sun_path) {
		fprintf(stderr, "usage: bare SOCKET\n");
		return 2;
	}
	strcpy(address.sun_path, arguments[1]);
	/* If the peer is gone meanwhile, the write fails and shows it. */
	signal(SIGPIPE, SIG_IGN);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 512) < 0)
		fail("listen");
	poll = epoll_create1(0);
	event.data.ptr = NULL;
	if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event) < 0)
		fail("epoll");
	for (;;) {
		int ready = epoll_wait(poll, events, EVENTS, -1);
		if (ready < 0 && errno != EINTR)
			fail("epoll_wait");
		for (int index = 0; index < ready; index++) {
			struct connection *connection = events[index].data.ptr;
			if (connection != NULL) {
				readable(connection);
				continue;
			}
			for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
				if ((connection = calloc(1, sizeof *connection)) == NULL)
					fail("calloc");
				connection->fd = fd;
				event.data.ptr = connection;
				if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0)
					fail("epoll_ctl");
			}
		}
	}
}
