// SPDX-License-Identifier: GPL-2.0
/*
 * virtio-ism: a dibs device over the virtio-ism device of vhost-ism
 *
 * vhost-ism/docs/device.md specifies the device. Guests on the same fabric can
 * use SMC-D between them.
 */

#include <linux/debugfs.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>

#include "ism_bell.h"

static bool copy;
module_param(copy, bool, 0444);
MODULE_PARM_DESC(copy,
		 "Let SMC copy through move_data() instead of writing into mapped peer buffers");

static struct dentry *ism_debugfs;

static const char * const ism_counter_names[ISM_COUNTERS] = {
	[ISM_COMMANDS] = "commands",
	[ISM_COMMANDS_FAILED] = "commands_failed",
	[ISM_COMMANDS_TIMED_OUT] = "commands_timed_out",
	[ISM_DOORBELLS_RUNG] = "doorbells_rung",
	[ISM_DOORBELLS_NOTIFIED] = "doorbells_notified",
	[ISM_DOORBELLS_SKIPPED] = "doorbells_skipped",
	[ISM_DOORBELLS_RECEIVED] = "doorbells_received",
	[ISM_DOORBELLS_STRAY] = "doorbells_stray",
	[ISM_BELLS_SEEN] = "bells_seen",
	[ISM_BELLS_STILL_SET] = "bells_still_set",
	[ISM_BELLS_POLLED] = "bells_polled",
	[ISM_EVENTS] = "events",
	[ISM_EVENTS_MALFORMED] = "events_malformed",
	[ISM_MESSAGES_SENT] = "messages_sent",
	[ISM_MESSAGES_RECEIVED] = "messages_received",
	[ISM_PEERS_GONE] = "peers_gone",
	[ISM_BYTES_MOVED] = "bytes_moved",
	[ISM_MOVES_POSTED] = "moves_posted",
	[ISM_MOVES_WAITED] = "moves_waited",
	[ISM_MOVES_NOTIFIED] = "moves_notified",
	[ISM_MOVES_FAILED] = "moves_failed",
	[ISM_WRITES_QUEUED] = "writes_queued",
	[ISM_WRITES_DROPPED] = "writes_dropped",
	[ISM_DETACHES_DEFERRED] = "detaches_deferred",
};

static const char *ism_mode(const struct virtio_ism *ism)
{
	if (ism_moves_by_request(ism))
		return "copy";
	return ism->copy ? "mapped, copying" : "mapped";
}

static u64 ism_counter(struct virtio_ism *ism, enum ism_counter counter)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += per_cpu_ptr(ism->counters, cpu)[counter];
	return sum;
}

static int ism_stats_show(struct seq_file *m, void *unused)
{
	struct virtio_ism *ism = m->private;
	struct ism_dmb_usage usage;
	int i;

	ism_dmb_usage(ism, &usage);
	seq_printf(m, "gid: %pUb\n", &ism->config.gid);
	seq_printf(m, "mode: %s\n", ism_mode(ism));
	seq_printf(m, "broken: %d\n", ism_is_broken(ism));
	seq_printf(m, "chunks: %u\n", ism->config.chunks);
	seq_printf(m, "chunks_used: %u\n", usage.chunks);
	seq_printf(m, "peers: %u\n", usage.peers);
	seq_printf(m, "deferred: %u\n", usage.deferred);
	seq_printf(m, "attachments: %u\n", READ_ONCE(ism->attachment_count));
	for (i = 0; i < ISM_COUNTERS; i++)
		seq_printf(m, "%s: %llu\n", ism_counter_names[i],
			   ism_counter(ism, i));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(ism_stats);

/*
 * The PCI transport treats a read past the end of the configuration space as
 * a bug, and does not export its length.
 */
static u32 ism_config_length(struct pci_dev *pdev)
{
	u32 length;
	u8 type;
	int pos;

	for (pos = pci_find_capability(pdev, PCI_CAP_ID_VNDR); pos > 0;
	     pos = pci_find_next_capability(pdev, pos, PCI_CAP_ID_VNDR)) {
		pci_read_config_byte(pdev, pos + VIRTIO_PCI_CAP_CFG_TYPE,
				     &type);
		if (type != VIRTIO_PCI_CAP_DEVICE_CFG)
			continue;
		pci_read_config_dword(pdev, pos + VIRTIO_PCI_CAP_LENGTH,
				      &length);
		return length;
	}
	return 0;
}

/*
 * The alias ID belongs to another device, and the draft has no magic number:
 * check before touching anything else, and decline quietly.
 */
static int ism_validate(struct virtio_device *vdev)
{
	struct device *parent = vdev->dev.parent;
	u16 version;
	u32 magic;

	if (!parent || !dev_is_pci(parent)) {
		dev_info(&vdev->dev, "not a PCI device, ignored\n");
		return -ENODEV;
	}
	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1) ||
	    ism_config_length(to_pci_dev(parent)) <
	    sizeof(struct virtio_ism_config)) {
		dev_info(&vdev->dev, "not a vhost-ism device, ignored\n");
		return -ENODEV;
	}
	virtio_cread_le(vdev, struct virtio_ism_config, magic, &magic);
	if (magic != VIRTIO_ISM_MAGIC) {
		dev_info(&vdev->dev, "not a vhost-ism device, ignored\n");
		return -ENODEV;
	}
	virtio_cread_le(vdev, struct virtio_ism_config, version, &version);
	if (version != VIRTIO_ISM_VERSION) {
		dev_info(&vdev->dev, "vhost-ism device of version %u, ignored\n",
			 version);
		return -ENODEV;
	}
	return 0;
}

static int ism_read_config(struct virtio_ism *ism)
{
	struct virtio_device *vdev = ism->vdev;
	struct ism_config *config = &ism->config;
	u64 chunk_size, notify_size, chunks;

	virtio_cread_le(vdev, struct virtio_ism_config, gid, &config->fabric);
	virtio_cread_le(vdev, struct virtio_ism_config, devid, &config->devid);
	virtio_cread_le(vdev, struct virtio_ism_config, chunk_size,
			&chunk_size);
	virtio_cread_le(vdev, struct virtio_ism_config, notify_size,
			&notify_size);
	virtio_cread_le(vdev, struct virtio_ism_config, chid, &config->chid);
	virtio_cread_le(vdev, struct virtio_ism_config, features,
			&config->features);
	virtio_cread_le(vdev, struct virtio_ism_config, max_dmbs,
			&config->max_dmbs);
	virtio_cread_bytes(vdev, offsetof(struct virtio_ism_config, dmb_gid),
			   &config->gid, sizeof(config->gid));
	virtio_cread_le(vdev, struct virtio_ism_config, window_size,
			&config->window_size);
	virtio_cread_le(vdev, struct virtio_ism_config, doorbell_offset,
			&config->doorbell_offset);
	virtio_cread_le(vdev, struct virtio_ism_config, doorbell_size,
			&config->doorbell_size);
	virtio_cread_le(vdev, struct virtio_ism_config, max_dmb_size,
			&config->max_dmb_size);

	if (!(config->features & VIRTIO_ISM_FEATURE_PEER)) {
		dev_err(&vdev->dev, "device has no PEER commands\n");
		return -EINVAL;
	}
	if (config->chid < VIRTIO_ISM_CHID_MIN ||
	    config->chid > VIRTIO_ISM_CHID_MAX) {
		dev_err(&vdev->dev, "fabric ID %#x is not in the range of virtio-ism\n",
			config->chid);
		return -EINVAL;
	}
	if (!ism_gid_valid(&config->gid)) {
		dev_err(&vdev->dev, "one half of the GID is zero\n");
		return -EINVAL;
	}
	if (!is_power_of_2(chunk_size) || chunk_size < PAGE_SIZE ||
	    chunk_size > VIRTIO_ISM_WINDOW_ALIGN) {
		dev_err(&vdev->dev, "chunk size %llu is not usable\n",
			chunk_size);
		return -EINVAL;
	}
	chunks = config->window_size / chunk_size;
	if (!config->window_size ||
	    !IS_ALIGNED(config->window_size, VIRTIO_ISM_WINDOW_ALIGN) ||
	    chunks > ISM_MAX_CHUNKS) {
		dev_err(&vdev->dev,
			"window of %llu bytes is not usable, maximum is %llu\n",
			config->window_size, ISM_MAX_CHUNKS * chunk_size);
		return -EINVAL;
	}
	config->chunk_size = chunk_size;
	config->chunks = chunks;
	if (notify_size != 1 ||
	    config->doorbell_offset < config->window_size ||
	    !PAGE_ALIGNED(config->doorbell_offset) ||
	    config->doorbell_size < VIRTIO_ISM_DOORBELL_BYTES + chunks) {
		dev_err(&vdev->dev,
			"doorbells of %llu bytes at %#llx, %llu each, are not usable\n",
			config->doorbell_size, config->doorbell_offset,
			notify_size);
		return -EINVAL;
	}
	if (!config->max_dmbs || !is_power_of_2(config->max_dmb_size) ||
	    config->max_dmb_size > config->window_size) {
		dev_err(&vdev->dev, "%u DMBs of %llu bytes are not usable\n",
			config->max_dmbs, config->max_dmb_size);
		return -EINVAL;
	}
	return 0;
}

static int ism_find_vqs(struct virtio_ism *ism)
{
	struct virtqueue_info info[VIRTIO_ISM_QUEUES] = {
		[VIRTIO_ISM_QUEUE_CONTROL] = { "control", ism_control_done },
		[VIRTIO_ISM_QUEUE_EVENT] = { "event", ism_event_done },
		[VIRTIO_ISM_QUEUE_DOORBELL] = { "doorbell", NULL },
	};
	struct virtqueue *vqs[VIRTIO_ISM_QUEUES];
	int ret;

	ret = virtio_find_vqs(ism->vdev, VIRTIO_ISM_QUEUES, vqs, info, NULL);
	if (ret)
		return ret;
	ism->control_vq = vqs[VIRTIO_ISM_QUEUE_CONTROL];
	ism->event_vq = vqs[VIRTIO_ISM_QUEUE_EVENT];
	if (ism_moves_by_request(ism))
		ism->move_vq = vqs[VIRTIO_ISM_QUEUE_DOORBELL];
	else
		ism->doorbell_vq = vqs[VIRTIO_ISM_QUEUE_DOORBELL];
	return 0;
}

/*
 * End the session; the device has no users any more. The window is unmapped
 * afterwards, because the reset ends the device's side of the mapping anyway.
 */
static void ism_stop(struct virtio_ism *ism)
{
	ism_watch_stop(ism);
	ism_bells_stop(ism);
	ism_queue_drain(ism);
	ism_dmb_drain(ism);
	cancel_work_sync(&ism->broken_work);
	virtio_reset_device(ism->vdev);
	ism_attachments_free(ism);
	ism_moves_free(ism);
	ism_control_free(ism);
}

static int ism_probe(struct virtio_device *vdev)
{
	struct virtio_ism *ism;
	int ret;

	ism = kzalloc_obj(*ism);
	if (!ism)
		return -ENOMEM;
	ism->vdev = vdev;
	ism->copy = copy;
	vdev->priv = ism;

	ism->counters = __alloc_percpu(sizeof(u64) * ISM_COUNTERS,
				       __alignof__(u64));
	if (!ism->counters) {
		ret = -ENOMEM;
		goto free;
	}
	ret = ism_read_config(ism);
	if (ret)
		goto free;
	ret = -ENOMEM;
	ism->wq = alloc_workqueue("%s", WQ_UNBOUND | WQ_MEM_RECLAIM, 0,
				  dev_name(&vdev->dev));
	if (!ism->wq)
		goto free;
	ism_control_init(ism);
	ret = ism_bells_init(ism);
	if (ret)
		goto free_wq;
	ret = ism_dmb_init(ism);
	if (ret)
		goto free_bells;
	ret = ism_event_init(ism);
	if (ret)
		goto free_dmb;
	ism->dibs = ism_dibs_alloc(ism);
	if (!ism->dibs) {
		ret = -ENOMEM;
		goto free_event;
	}
	ret = ism_window_map(ism);
	if (ret)
		goto put_dibs;
	ret = ism_moves_init(ism);
	if (ret)
		goto unmap;
	ret = ism_find_vqs(ism);
	if (ret) {
		dev_err(&vdev->dev, "cannot set up the queues: %d\n", ret);
		goto free_moves;
	}
	ism_attachments_init(ism);
	ism_queue_init(ism);
	ret = ism_event_fill(ism);
	if (ret) {
		dev_err(&vdev->dev, "cannot post event buffers: %d\n", ret);
		goto stop;
	}

	virtio_device_ready(vdev);
	virtqueue_kick(ism->event_vq);

	/* A reply implies that the doorbell area is mapped as well. */
	ret = ism_query_gid(ism, &ism->config.gid);
	if (ret) {
		dev_err(&vdev->dev, "device does not know its own GID: %d\n",
			ret);
		goto stop;
	}

	ism->debugfs = debugfs_create_dir(dev_name(&vdev->dev), ism_debugfs);
	debugfs_create_file("stats", 0400, ism->debugfs, ism,
			    &ism_stats_fops);
	dev_info(&vdev->dev,
		 "GID %pUb, fabric ID %#x, window of %llu MiB, %s mode\n",
		 &ism->config.gid, ism->config.chid,
		 ism->config.window_size / SZ_1M, ism_mode(ism));

	ism_bells_start(ism);
	ism_watch_start(ism);
	/* The client may connect from here on. */
	ret = dibs_dev_add(ism->dibs);
	if (ret) {
		dev_err(&vdev->dev, "cannot add the dibs device: %d\n", ret);
		goto remove_debugfs;
	}
	return 0;

remove_debugfs:
	debugfs_remove(ism->debugfs);
stop:
	ism_stop(ism);
	vdev->config->del_vqs(vdev);
free_moves:
	ism_moves_free(ism);
unmap:
	ism_window_unmap(ism);
put_dibs:
	put_device(&ism->dibs->dev);
free_event:
	ism_event_free(ism);
free_dmb:
	ism_dmb_free(ism);
free_bells:
	ism_bells_free(ism);
free_wq:
	destroy_workqueue(ism->wq);
free:
	free_percpu(ism->counters);
	kfree(ism);
	return ret;
}

static void ism_remove(struct virtio_device *vdev)
{
	struct virtio_ism *ism = vdev->priv;

	/* The core breaks the queues of a device that was unplugged. */
	if (virtqueue_is_broken(ism->control_vq))
		ism_set_broken(ism);

	/* The client ends its connections, which needs a working device. */
	dibs_dev_del(ism->dibs);
	debugfs_remove(ism->debugfs);
	ism_stop(ism);
	vdev->config->del_vqs(vdev);
	ism_window_unmap(ism);
	put_device(&ism->dibs->dev);
	ism_event_free(ism);
	ism_dmb_free(ism);
	ism_bells_free(ism);
	destroy_workqueue(ism->wq);
	free_percpu(ism->counters);
	kfree(ism);
}

/*
 * A session does not survive the reset of a suspend, and the client cannot end
 * its connections while user space is frozen.
 */
static int ism_freeze(struct virtio_device *vdev)
{
	dev_err(&vdev->dev, "unbind the driver before suspending\n");
	return -EBUSY;
}

static int ism_restore(struct virtio_device *vdev)
{
	return -EIO;
}

static const struct virtio_device_id ism_id_table[] = {
	{ VIRTIO_ID_ISM, VIRTIO_DEV_ANY_ID },
	{ VIRTIO_ID_ISM_ALIAS, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, ism_id_table);

static struct virtio_driver ism_driver = {
	.driver.name = KBUILD_MODNAME,
	.id_table = ism_id_table,
	.validate = ism_validate,
	.probe = ism_probe,
	.remove = ism_remove,
	.freeze = pm_sleep_ptr(ism_freeze),
	.restore = pm_sleep_ptr(ism_restore),
};

static int __init ism_init(void)
{
	int ret;

	ism_debugfs = debugfs_create_dir(KBUILD_MODNAME, NULL);
	ret = register_virtio_driver(&ism_driver);
	if (ret)
		debugfs_remove(ism_debugfs);
	return ret;
}
module_init(ism_init);

static void __exit ism_exit(void)
{
	unregister_virtio_driver(&ism_driver);
	debugfs_remove(ism_debugfs);
	/* Attachments are freed after a grace period. */
	rcu_barrier();
}
module_exit(ism_exit);

MODULE_DESCRIPTION("virtio-ism: shared memory between guests for SMC-D");
MODULE_LICENSE("GPL");
