/* Says as whom it runs and what it may do: "<effective uid> <effective capabilities in hex>". Static. */
#include <linux/capability.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { 0 } };

	if (syscall(SYS_capget, &head, data))
		return 1;
	printf("%d %x\n", (int)geteuid(), data[0].effective);
	return 0;
}
