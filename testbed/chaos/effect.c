/* The program of every execution of the chaos test, alone in its image.
 *
 * MSG is "TAG MILLISECONDS". It tells the collector when it begins and when it
 * ends, writes both to its log, and where CHAOS_STATEFUL is set it raises the
 * counter in the actor's state by one in between. What it cannot tell in time it
 * ends over, so whatever succeeded was told.
 *
 * CHAOS_COLLECTOR is HOST:PORT, CHAOS_APIS are further HOST:PORT beside that of
 * _abaco_api_server. Exit codes: 0 done, 7 no collector, 8 no API, 9 the API
 * says that this attempt may not write. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_SECONDS 12

static char nonce[17];

static const char *variable(const char *name)
{
	const char *value = getenv(name);
	return value && *value ? value : "-";
}

static void pause_for(long milliseconds)
{
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	nanosleep(&time, NULL);
}

/* A connection to "ADDRESS:PORT", where http:// before and a path after it do
 * not matter; -1 where there is none within two seconds. */
static int reach(const char *place)
{
	char address[64] = "";
	int port = 0;
	if (!strncmp(place, "http://", 7))
		place += 7;
	if (sscanf(place, "%63[0-9.]:%d", address, &port) != 2)
		return -1;
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
		return -1;
	int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval wait = { .tv_sec = 2 };
	setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
	setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
	if (connect(connection, (struct sockaddr *)&to, sizeof to)) {
		close(connection);
		return -1;
	}
	return connection;
}

/* Sends a request and reads the beginning of the answer; 0 where none came. */
static int ask(const char *place, const char *request, char *answer, size_t size)
{
	int connection = reach(place);
	if (connection < 0)
		return 0;
	size_t have = 0, length = strlen(request);
	int sent = send(connection, request, length, MSG_NOSIGNAL) == (ssize_t)length;
	while (sent && have < size - 1) {
		ssize_t more = recv(connection, answer + have, size - 1 - have, 0);
		if (more <= 0)
			break;
		have += more;
		if (memchr(answer, '\n', have))
			break;
	}
	close(connection);
	answer[have] = 0;
	return memchr(answer, '\n', have) != NULL;
}

/* The part of the access token that says which claim it was made for. */
static void token_payload(char *payload, size_t size)
{
	const char *token = variable("_abaco_access_token");
	const char *first = strchr(token, '.'), *second = first ? strchr(first + 1, '.') : NULL;
	if (second)
		snprintf(payload, size, "%.*s", (int)(second - first - 1), first + 1);
	else
		snprintf(payload, size, "-");
}

static void tell(const char *what, const char *tag)
{
	char line[4096], answer[64], payload[2048];
	token_payload(payload, sizeof payload);
	snprintf(line, sizeof line, "%s %s %s %s %s %s %s\n", what, variable("_abaco_execution_id"), nonce,
		variable("_abaco_attempt"), variable("_abaco_worker_id"), payload, tag);
	time_t end = time(NULL) + PATIENCE_SECONDS;
	do {
		if (ask(variable("CHAOS_COLLECTOR"), line, answer, sizeof answer))
			return;
		pause_for(200);
	} while (time(NULL) < end);
	printf("collector out of reach\n");
	exit(7);
}

/* The number after "count" in the state that the container was given. */
static long count_in_environment(void)
{
	const char *at = strstr(variable("_abaco_actor_state"), "count");
	while (at && *at && (*at < '0' || *at > '9'))
		at++;
	return at && *at ? atol(at) : 0;
}

static void raise_the_counter(void)
{
	long read = count_in_environment();
	char body[128], request[4096], answer[256];
	int length = snprintf(body, sizeof body, "{\"count\": %ld, \"by\": \"%s\"}", read + 1, nonce);
	snprintf(request, sizeof request,
		"POST /actors/v2/%s/state HTTP/1.1\r\nHost: api\r\nConnection: close\r\n"
		"Authorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		variable("_abaco_actor_id"), variable("_abaco_access_token"), length, body);
	printf("state read=%ld writes=%ld\n", read, read + 1);
	time_t end = time(NULL) + PATIENCE_SECONDS;
	do {
		char places[512];
		snprintf(places, sizeof places, "%s %s", variable("_abaco_api_server"), variable("CHAOS_APIS"));
		for (char *place = strtok(places, " "); place; place = strtok(NULL, " ")) {
			int status = 0;
			if (!ask(place, request, answer, sizeof answer) || sscanf(answer, "HTTP/1.1 %d", &status) != 1)
				continue;
			if (status >= 200 && status < 300) {
				printf("state accepted\n");
				return;
			}
			if (status < 500 && status != 408 && status != 429) {
				printf("state refused status=%d\n", status);
				exit(9);
			}
		}
		pause_for(200);
	} while (time(NULL) < end);
	printf("api out of reach\n");
	exit(8);
}

int main(void)
{
	unsigned char random[8];
	if (getrandom(random, sizeof random, 0) != sizeof random)
		return 1;
	for (int i = 0; i < 8; i++)
		sprintf(nonce + 2 * i, "%02x", random[i]);
	setvbuf(stdout, NULL, _IOLBF, 0);

	char tag[128] = "-";
	long milliseconds = 0;
	sscanf(variable("MSG"), "%127s %ld", tag, &milliseconds);
	printf("begin nonce=%s attempt=%s worker=%s tag=%s\n", nonce, variable("_abaco_attempt"), variable("_abaco_worker_id"), tag);
	tell("begin", tag);
	pause_for(milliseconds / 2);
	if (getenv("CHAOS_STATEFUL"))
		raise_the_counter();
	pause_for(milliseconds - milliseconds / 2);
	tell("end", tag);
	printf("end nonce=%s\n", nonce);
	return 0;
}
