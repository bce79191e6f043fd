// SPDX-License-Identifier: GPL-2.0
/* Ask Linux's SMEM driver for an item, and say what it answers. */
#include <linux/err.h>
#include <linux/module.h>
#include <linux/soc/qcom/smem.h>

static int host = -1;
module_param(host, int, 0);
MODULE_PARM_DESC(host, "Number of the other processor, -1 for any");

static int item = 602;
module_param(item, int, 0);
MODULE_PARM_DESC(item, "Number of the item");

static int __init smem_probe_init(void)
{
	size_t size = 0;
	void *data = qcom_smem_get(host, item, &size);

	if (IS_ERR(data))
		pr_info("smem_probe: %d %d: error %ld\n", host, item,
			PTR_ERR(data));
	else
		pr_info("smem_probe: %d %d: %zu bytes %*ph\n", host, item, size,
			(int)min_t(size_t, size, 16), data);
	return -ENODEV; /* It has said all; nothing stays. */
}
module_init(smem_probe_init);

MODULE_DESCRIPTION("Ask for an item of SMEM");
MODULE_LICENSE("GPL");
