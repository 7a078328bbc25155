// SPDX-License-Identifier: GPL-2.0
/*
 * virtio-ism: the operations of a dibs device
 *
 * include/linux/dibs.h defines them, net/smc/smc_ism.c calls them. Only
 * move_data(), support_mmapped_rdmb() and the VLAN operations are called in
 * atomic context.
 */

#include "ism.h"

static u16 ism_get_fabric_id(struct dibs_dev *dibs)
{
	struct virtio_ism *ism = dibs->drv_priv;

	return ism->config.chid;
}

/* Query whether the driver of the guest with this GID is up. */
int ism_query_gid(struct virtio_ism *ism, const uuid_t *gid)
{
	struct virtio_ism_query_gid command;

	export_uuid(command.gid, gid);
	return ism_control(ism, VIRTIO_ISM_CTRL_PEER,
			   VIRTIO_ISM_CTRL_PEER_QUERY_GID,
			   &command, sizeof(command), NULL, 0);
}

/* A guest does not share memory with itself: dibs loopback does that. */
static int ism_query_remote_gid(struct dibs_dev *dibs, const uuid_t *rgid,
				u32 vid_valid, u32 vid)
{
	if (!ism_gid_valid(rgid) || uuid_equal(rgid, &dibs->gid))
		return -ENETUNREACH;
	return ism_query_gid(dibs->drv_priv, rgid) ? -ENETUNREACH : 0;
}

static int ism_max_dmbs(void)
{
	return ISM_MAX_CHUNKS;
}

static void ism_set_client(struct dibs_dev *dibs, u32 idx, u8 id)
{
	unsigned long flags;

	spin_lock_irqsave(&dibs->lock, flags);
	dibs->dmb_clientid_arr[idx] = id;
	spin_unlock_irqrestore(&dibs->lock, flags);
}

static int ism_register_dmb(struct dibs_dev *dibs, struct dibs_dmb *dmb,
			    struct dibs_client *client)
{
	int ret;

	ret = ism_dmb_register(dibs->drv_priv, dmb);
	if (ret)
		return ret;
	/* Before the peer learns the token, so that no doorbell is lost. */
	ism_set_client(dibs, dmb->idx, client->id);
	return 0;
}

static int ism_unregister_dmb(struct dibs_dev *dibs, struct dibs_dmb *dmb)
{
	/* The client cannot be unloaded while the slot refers to it. */
	if (dmb->idx < ISM_MAX_CHUNKS)
		ism_set_client(dibs, dmb->idx, NO_DIBS_CLIENT);
	return ism_dmb_unregister(dibs->drv_priv, dmb);
}

/* idx selects an element within the DMB; the client uses only one. */
static int ism_move_data(struct dibs_dev *dibs, u64 dmb_tok, unsigned int idx,
			 bool sf, unsigned int offset, void *data,
			 unsigned int size)
{
	return ism_move(dibs->drv_priv, dmb_tok, sf, offset, data, size);
}

/*
 * The device has no VLANs. But without these operations SMC assumes a device
 * without version 2, and declines connections over VLAN netdevs.
 */
static int ism_add_vlan_id(struct dibs_dev *dibs, u64 vlan_id)
{
	return 0;
}

static int ism_del_vlan_id(struct dibs_dev *dibs, u64 vlan_id)
{
	return 0;
}

static int ism_signal_event(struct dibs_dev *dibs, const uuid_t *rgid,
			    u32 trigger_irq, u32 event_code, u64 info)
{
	struct virtio_ism *ism = dibs->drv_priv;
	struct virtio_ism_send_message command = {
		.code = cpu_to_le32(event_code),
		.info = cpu_to_le64(info),
	};
	int ret;

	export_uuid(command.peer_gid, rgid);
	ret = ism_control(ism, VIRTIO_ISM_CTRL_PEER,
			  VIRTIO_ISM_CTRL_PEER_SEND_MESSAGE,
			  &command, sizeof(command), NULL, 0);
	if (!ret)
		ism_count(ism, ISM_MESSAGES_SENT);
	return ret;
}

static int ism_support_mmapped_rdmb(struct dibs_dev *dibs)
{
	struct virtio_ism *ism = dibs->drv_priv;

	return !ism->copy && !ism_moves_by_request(ism);
}

static int ism_attach_dmb(struct dibs_dev *dibs, struct dibs_dmb *dmb)
{
	return ism_attach(dibs->drv_priv, dmb);
}

static int ism_detach_dmb(struct dibs_dev *dibs, u64 token)
{
	return ism_detach(dibs->drv_priv, token);
}

static const struct dibs_dev_ops ism_dibs_ops = {
	.get_fabric_id = ism_get_fabric_id,
	.query_remote_gid = ism_query_remote_gid,
	.max_dmbs = ism_max_dmbs,
	.register_dmb = ism_register_dmb,
	.unregister_dmb = ism_unregister_dmb,
	.move_data = ism_move_data,
	.add_vlan_id = ism_add_vlan_id,
	.del_vlan_id = ism_del_vlan_id,
	.signal_event = ism_signal_event,
	.support_mmapped_rdmb = ism_support_mmapped_rdmb,
	.attach_dmb = ism_attach_dmb,
	.detach_dmb = ism_detach_dmb,
};

/* The caller adds the device once everything else is set up. */
struct dibs_dev *ism_dibs_alloc(struct virtio_ism *ism)
{
	struct virtio_device *vdev = ism->vdev;
	struct dibs_dev *dibs;

	dibs = dibs_dev_alloc();
	if (!dibs)
		return NULL;
	dibs->ops = &ism_dibs_ops;
	dibs->drv_priv = ism;
	uuid_copy(&dibs->gid, &ism->config.gid);
	/* SMC reads the PNETID of the parent, which must be a PCI device. */
	dibs->dev.parent = vdev->dev.parent;
	if (dev_set_name(&dibs->dev, "virtio_ism%u", vdev->index)) {
		put_device(&dibs->dev);
		return NULL;
	}
	return dibs;
}
