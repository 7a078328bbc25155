// SPDX-License-Identifier: GPL-2.0
/*
 * ism_probe: send arbitrary requests to a virtio-ism device
 *
 * For tests only. Binds the device instead of virtio_ism, and lets root put any
 * bytes into the control queue, as a malicious guest would.
 *
 * Interface in /sys/kernel/debug/ism_probe:
 *
 *	config	read: the configuration space in hexadecimal
 *	request	write "PIECE ROOM HEX": send the bytes HEX, split into
 *		descriptors of PIECE bytes (0: one), with ROOM writable bytes;
 *		read: "USED HEX", the reply. HEX may be missing or "-" for
 *		none.
 *	ring	write "OFFSET": set the doorbell byte at this offset of the
 *		doorbell area, and notify the device
 *	events	read: the last events received, one per line
 *
 * One request at a time; -ETIMEDOUT after five seconds without a reply.
 */

#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/hex.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include "../virtio_ism/virtio_ism_abi.h"

#define PROBE_BYTES	1024
#define PROBE_PIECES	16
#define PROBE_EVENTS	8
#define PROBE_EVENT	256
#define PROBE_LOG	64

struct probe {
	struct virtio_device *vdev;
	struct virtqueue *vqs[VIRTIO_ISM_QUEUES];
	struct dentry *debugfs;
	u8 __iomem *doorbells;
	u64 doorbell_size;

	/* Serialises requests and readers of the event queue */
	struct mutex lock;
	/* No reply to a request: the device may still use the buffers. */
	bool stuck;
	u8 *out;
	u8 *in;
	unsigned int used;

	u8 *events;
	unsigned int logged;
	struct {
		unsigned int len;
		u8 bytes[PROBE_EVENT];
	} log[PROBE_LOG];
};

static struct probe *the_probe;

static void probe_post_event(struct probe *probe, u8 *buffer)
{
	struct scatterlist sg;

	sg_init_one(&sg, buffer, PROBE_EVENT);
	virtqueue_add_inbuf(probe->vqs[VIRTIO_ISM_QUEUE_EVENT], &sg, 1, buffer,
			    GFP_KERNEL);
}

static void probe_take_events(struct probe *probe)
{
	struct virtqueue *vq = probe->vqs[VIRTIO_ISM_QUEUE_EVENT];
	unsigned int len, slot;
	u8 *buffer;

	while ((buffer = virtqueue_get_buf(vq, &len))) {
		slot = probe->logged++ % PROBE_LOG;
		probe->log[slot].len = min(len, PROBE_EVENT);
		memcpy(probe->log[slot].bytes, buffer, probe->log[slot].len);
		probe_post_event(probe, buffer);
	}
	virtqueue_kick(vq);
}

/* Send the first @len bytes of probe->out; the reply goes to probe->in. */
static int probe_send(struct probe *probe, unsigned int len,
		      unsigned int piece, unsigned int room)
{
	struct virtqueue *vq = probe->vqs[VIRTIO_ISM_QUEUE_CONTROL];
	struct scatterlist out[PROBE_PIECES], in, *sgs[PROBE_PIECES + 1];
	unsigned int count = 0, at, part, written;
	unsigned long end = jiffies + 5 * HZ;
	int ret;

	if (!piece)
		piece = PROBE_BYTES;
	for (at = 0; at < len; at += part) {
		if (count == PROBE_PIECES)
			return -E2BIG;
		part = min(piece, len - at);
		sg_init_one(&out[count], probe->out + at, part);
		sgs[count] = &out[count];
		count++;
	}
	memset(probe->in, 0xa5, PROBE_BYTES);
	if (room) {
		sg_init_one(&in, probe->in, room);
		sgs[count] = &in;
	}
	if (!count && !room)
		return -EINVAL;
	ret = virtqueue_add_sgs(vq, sgs, count, room ? 1 : 0, probe,
				GFP_KERNEL);
	if (ret)
		return ret;
	virtqueue_kick(vq);
	while (!virtqueue_get_buf(vq, &written)) {
		if (time_after(jiffies, end)) {
			probe->stuck = true;
			return -ETIMEDOUT;
		}
		usleep_range(200, 500);
	}
	probe->used = written;
	return 0;
}

static ssize_t request_write(struct file *file, const char __user *user,
			     size_t size, loff_t *pos)
{
	struct probe *probe = file->private_data;
	unsigned int piece, room, len = 0;
	char *text, *hex;
	int ret, skip = 0;

	if (size > 2 * PROBE_BYTES + 32)
		return -E2BIG;
	text = memdup_user_nul(user, size);
	if (IS_ERR(text))
		return PTR_ERR(text);
	ret = -EINVAL;
	if (sscanf(text, "%u %u %n", &piece, &room, &skip) < 2 ||
	    room > PROBE_BYTES)
		goto free;
	hex = strim(text + skip);
	if (strcmp(hex, "-")) {
		len = strlen(hex) / 2;
		if (strlen(hex) % 2 || len > PROBE_BYTES)
			goto free;
	}
	mutex_lock(&probe->lock);
	if (probe->stuck) {
		ret = -EIO;
	} else {
		ret = len ? hex2bin(probe->out, hex, len) : 0;
		if (!ret)
			ret = probe_send(probe, len, piece, room);
	}
	mutex_unlock(&probe->lock);
free:
	kfree(text);
	return ret ?: size;
}

static ssize_t request_read(struct file *file, char __user *user, size_t size,
			    loff_t *pos)
{
	struct probe *probe = file->private_data;
	unsigned int used, at;
	ssize_t ret;
	char *text;

	text = kzalloc(2 * PROBE_BYTES + 32, GFP_KERNEL);
	if (!text)
		return -ENOMEM;
	mutex_lock(&probe->lock);
	used = min(probe->used, PROBE_BYTES);
	at = sprintf(text, "%u ", probe->used);
	bin2hex(text + at, probe->in, used);
	mutex_unlock(&probe->lock);
	at += 2 * used;
	text[at++] = '\n';
	ret = simple_read_from_buffer(user, size, pos, text, at);
	kfree(text);
	return ret;
}

static const struct file_operations request_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = request_read,
	.write = request_write,
};

static ssize_t ring_write(struct file *file, const char __user *user,
			  size_t size, loff_t *pos)
{
	struct probe *probe = file->private_data;
	u64 offset;
	int ret;

	ret = kstrtou64_from_user(user, size, 0, &offset);
	if (ret)
		return ret;
	if (offset >= probe->doorbell_size)
		return -ERANGE;
	writeb(1, probe->doorbells + offset);
	virtqueue_notify(probe->vqs[VIRTIO_ISM_QUEUE_DOORBELL]);
	return size;
}

static const struct file_operations ring_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = ring_write,
};

static int config_show(struct seq_file *seq, void *unused)
{
	struct probe *probe = seq->private;
	u8 config[sizeof(struct virtio_ism_config)];

	virtio_cread_bytes(probe->vdev, 0, config, sizeof(config));
	seq_printf(seq, "%*phN\n", 64, config);
	seq_printf(seq, "%*phN\n", 32, config + 64);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(config);

static int events_show(struct seq_file *seq, void *unused)
{
	struct probe *probe = seq->private;
	unsigned int at, i;

	mutex_lock(&probe->lock);
	probe_take_events(probe);
	for (at = probe->logged - min(probe->logged, PROBE_LOG);
	     at != probe->logged; at++) {
		for (i = 0; i < probe->log[at % PROBE_LOG].len; i++)
			seq_printf(seq, "%02x",
				   probe->log[at % PROBE_LOG].bytes[i]);
		seq_putc(seq, '\n');
	}
	mutex_unlock(&probe->lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(events);

static int probe_map_doorbells(struct probe *probe)
{
	struct virtio_shm_region region;
	u64 offset;

	virtio_cread_le(probe->vdev, struct virtio_ism_config,
			doorbell_offset, &offset);
	virtio_cread_le(probe->vdev, struct virtio_ism_config,
			doorbell_size, &probe->doorbell_size);
	if (!virtio_get_shm_region(probe->vdev, &region, VIRTIO_ISM_SHM_ID) ||
	    offset > region.len || probe->doorbell_size > region.len - offset)
		return -EINVAL;
	probe->doorbells = ioremap(region.addr + offset, probe->doorbell_size);
	return probe->doorbells ? 0 : -ENOMEM;
}

static void probe_free(struct probe *probe)
{
	if (probe->doorbells)
		iounmap(probe->doorbells);
	kfree(probe->out);
	kfree(probe->in);
	kfree(probe->events);
	kfree(probe);
}

static int probe_probe(struct virtio_device *vdev)
{
	struct virtqueue_info info[VIRTIO_ISM_QUEUES] = {
		[VIRTIO_ISM_QUEUE_CONTROL] = { "control" },
		[VIRTIO_ISM_QUEUE_EVENT] = { "event" },
		[VIRTIO_ISM_QUEUE_DOORBELL] = { "doorbell" },
	};
	struct probe *probe;
	u32 magic;
	int ret, i;

	virtio_cread_le(vdev, struct virtio_ism_config, magic, &magic);
	if (magic != VIRTIO_ISM_MAGIC || the_probe)
		return -ENODEV;
	probe = kzalloc_obj(*probe);
	if (!probe)
		return -ENOMEM;
	mutex_init(&probe->lock);
	probe->vdev = vdev;
	vdev->priv = probe;
	probe->out = kzalloc(PROBE_BYTES, GFP_KERNEL);
	probe->in = kzalloc(PROBE_BYTES, GFP_KERNEL);
	probe->events = kzalloc(PROBE_EVENTS * PROBE_EVENT, GFP_KERNEL);
	ret = -ENOMEM;
	if (!probe->out || !probe->in || !probe->events)
		goto free;
	ret = probe_map_doorbells(probe);
	if (ret)
		goto free;
	/* No callbacks: readers poll the queues. */
	ret = virtio_find_vqs(vdev, VIRTIO_ISM_QUEUES, probe->vqs, info, NULL);
	if (ret)
		goto free;
	for (i = 0; i < PROBE_EVENTS; i++)
		probe_post_event(probe, probe->events + i * PROBE_EVENT);
	virtio_device_ready(vdev);
	virtqueue_kick(probe->vqs[VIRTIO_ISM_QUEUE_EVENT]);

	the_probe = probe;
	probe->debugfs = debugfs_create_dir("ism_probe", NULL);
	debugfs_create_file("request", 0600, probe->debugfs, probe,
			    &request_fops);
	debugfs_create_file("ring", 0200, probe->debugfs, probe, &ring_fops);
	debugfs_create_file("config", 0400, probe->debugfs, probe,
			    &config_fops);
	debugfs_create_file("events", 0400, probe->debugfs, probe,
			    &events_fops);
	return 0;

free:
	probe_free(probe);
	return ret;
}

static void probe_remove(struct virtio_device *vdev)
{
	struct probe *probe = vdev->priv;

	debugfs_remove_recursive(probe->debugfs);
	the_probe = NULL;
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
	probe_free(probe);
}

static const struct virtio_device_id probe_ids[] = {
	{ VIRTIO_ID_ISM, VIRTIO_DEV_ANY_ID },
	{ VIRTIO_ID_ISM_ALIAS, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, probe_ids);

static struct virtio_driver probe_driver = {
	.driver.name = KBUILD_MODNAME,
	.id_table = probe_ids,
	.probe = probe_probe,
	.remove = probe_remove,
};
module_virtio_driver(probe_driver);

MODULE_DESCRIPTION("Arbitrary requests to a virtio-ism device, for tests");
MODULE_LICENSE("GPL");
