/* The program of every execution of the load run, alone in its image.
 *
 * It prints its message, reads the binary one where there is one, sends as many
 * results as WORK_RESULTS says, and works for WORK_MS milliseconds. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static long number(const char *name)
{
	const char *value = getenv(name);
	return value ? atol(value) : 0;
}

static int fail(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	return 1;
}

static int read_message(void)
{
	static char part[65536];
	int file = open("/_abaco_binary_data", O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return errno == ENOENT ? 0 : fail("message");
	long total = 0, sum = 0, got;
	while ((got = read(file, part, sizeof part)) > 0) {
		total += got;
		for (long i = 0; i < got; i++)
			sum += (unsigned char)part[i];
	}
	close(file);
	if (got < 0)
		return fail("message");
	printf("bytes %ld sum %ld\n", total, sum);
	return 0;
}

static int send_results(long count)
{
	if (count == 0)
		return 0;
	struct sockaddr_un to = { .sun_family = AF_UNIX, .sun_path = "/_abaco_results.sock" };
	int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sender < 0 || connect(sender, (struct sockaddr *)&to, sizeof to))
		return fail("results");
	const char *execution = getenv("_abaco_execution_id");
	for (long i = 1; i <= count; i++) {
		char result[128];
		int length = snprintf(result, sizeof result, "%s %ld", execution ? execution : "-", i);
		if (send(sender, result, length, 0) != length)
			return fail("results");
	}
	close(sender);
	return 0;
}

int main(void)
{
	const char *message = getenv("MSG");
	printf("message %s\n", message ? message : "-");
	int wrong = read_message() | send_results(number("WORK_RESULTS"));
	fflush(stdout);
	long milliseconds = number("WORK_MS");
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	nanosleep(&time, NULL);
	return wrong;
}
