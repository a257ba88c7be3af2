/* Makes one system call and prints what came of it: the probe of the tests, run inside a step.
 *
 *   probe NUMBER [ARGUMENT]...        by this machine's numbers
 *   probe -i386 NUMBER [ARGUMENT]...  by those of i386, on x86-64
 *
 * An argument is a number, or text, which is passed by its address.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static long i386(long number, long *arguments)
{
	long result = -ENOSYS;
#ifdef __x86_64__
	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(arguments[0]), "c"(arguments[1]), "d"(arguments[2]),
			   "S"(arguments[3]), "D"(arguments[4])
			 : "memory", "r8", "r9", "r10", "r11");
#endif
	if (result < 0 && result > -4096) {
		errno = (int)-result;
		result = -1;
	}
	return result;
}

int main(int argc, char **argv)
{
	int foreign = argc > 1 && strcmp(argv[1], "-i386") == 0;
	long arguments[6] = {0}, result, number;

	argv += 1 + foreign;
	if (*argv == NULL)
		return 2;
	number = strtol(*argv++, NULL, 0);
	for (int i = 0; i < 6 && *argv != NULL; i++, argv++) {
		int is_number = isdigit((unsigned char)**argv) || **argv == '-';
		arguments[i] = is_number ? (long)strtoul(*argv, NULL, 0) : (long)*argv;
	}
	errno = 0;
	result = foreign ? i386(number, arguments)
			 : syscall(number, arguments[0], arguments[1], arguments[2], arguments[3],
				   arguments[4], arguments[5]);
	if (result == -1)
		puts(strerrorname_np(errno));
	else
		printf("%ld\n", result);
	return 0;
}
