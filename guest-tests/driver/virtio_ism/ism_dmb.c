// SPDX-License-Identifier: GPL-2.0
/*
 * virtio-ism: the window and the DMBs this guest owns
 *
 * SMC needs struct pages for a DMB, and splice() passes them on with offsets
 * over the whole DMB. So the window is mapped as generic device memory with
 * compound pages (see page_copy_sane() in lib/iov_iter.c), and a DMB, which is
 * aligned to its size, never crosses one.
 *
 * A spliced page may stay referenced long after the DMB is unregistered, for
 * instance by a pipe that is never read. The device would reuse the memory for
 * another DMB, so DETACH is deferred until the page is free. The reference
 * count is that of the compound page: it includes references to neighbouring
 * DMBs.
 */

#include <linux/bitmap.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>

#include "ism_bell.h"

#if !IS_ENABLED(CONFIG_ZONE_DEVICE)
#error "virtio_ism needs CONFIG_ZONE_DEVICE"
#endif

#define ISM_COMPOUND_ORDER	(ilog2(VIRTIO_ISM_WINDOW_ALIGN) - PAGE_SHIFT)

#define ISM_DEFERRED_RETRY	(HZ / 20)
#define ISM_DEFERRED_PATIENCE	(5 * HZ)

/* A guest for which this guest owns DMBs */
struct ism_peer {
	struct list_head list;
	uuid_t gid;
	unsigned int dmbs;
};

struct ism_dmb {
	struct list_head deferred;
	struct ism_peer *peer;
	struct ism_slab *slab;
	struct ism_bell bell;
	u64 token;
	u32 chunk;
	u32 len;
};

static void *ism_chunk_addr(struct virtio_ism *ism, u32 chunk)
{
	return ism->window->addr + (u64)chunk * ism->config.chunk_size;
}

/* The window */

int ism_window_map(struct virtio_ism *ism)
{
	const struct ism_config *config = &ism->config;
	struct virtio_device *vdev = ism->vdev;
	struct virtio_shm_region shm;
	struct ism_window *window;
	int ret;

	if (!virtio_get_shm_region(vdev, &shm, VIRTIO_ISM_SHM_ID)) {
		dev_err(&vdev->dev, "no shared memory region %u\n",
			VIRTIO_ISM_SHM_ID);
		return -ENODEV;
	}
	if (shm.len < config->window_size ||
	    shm.len < config->doorbell_offset ||
	    shm.len - config->doorbell_offset < config->doorbell_size) {
		dev_err(&vdev->dev,
			"shared memory of %#llx bytes does not hold window and doorbells\n",
			shm.len);
		return -EINVAL;
	}
	if (!IS_ALIGNED(shm.addr, VIRTIO_ISM_WINDOW_ALIGN)) {
		dev_err(&vdev->dev, "shared memory at %#llx is not aligned\n",
			shm.addr);
		return -EINVAL;
	}

	window = kzalloc_obj(*window);
	if (!window)
		return -ENOMEM;
	window->start = shm.addr;
	window->len = shm.len;
	strscpy(window->name, dev_name(&vdev->dev));
	if (!request_mem_region(window->start, window->len, window->name)) {
		dev_err(&vdev->dev, "shared memory at %#llx is in use\n",
			window->start);
		ret = -EBUSY;
		goto free;
	}

	window->pgmap.type = MEMORY_DEVICE_GENERIC;
	window->pgmap.vmemmap_shift = ISM_COMPOUND_ORDER;
	window->pgmap.nr_range = 1;
	window->pgmap.range.start = window->start;
	window->pgmap.range.end = window->start + config->window_size - 1;
	window->addr = memremap_pages(&window->pgmap,
				      dev_to_node(vdev->dev.parent));
	if (IS_ERR(window->addr)) {
		ret = PTR_ERR(window->addr);
		dev_err(&vdev->dev, "cannot map a window of %#llx bytes: %d\n",
			config->window_size, ret);
		goto release;
	}

	ism->doorbell = memremap(window->start + config->doorbell_offset,
				 config->doorbell_size, MEMREMAP_WB);
	if (!ism->doorbell) {
		dev_err(&vdev->dev, "cannot map the doorbell area\n");
		ret = -ENOMEM;
		goto unmap;
	}
	ism->window = window;
	return 0;

unmap:
	memunmap_pages(&window->pgmap);
release:
	release_mem_region(window->start, window->len);
free:
	kfree(window);
	return ret;
}

static bool ism_range_held(const void *addr, u64 len)
{
	u64 offset;

	/* Device memory has a base count of one. */
	for (offset = 0; offset < len; offset += VIRTIO_ISM_WINDOW_ALIGN) {
		if (folio_ref_count(page_folio(virt_to_page(addr + offset))) > 1)
			return true;
	}
	return false;
}

void ism_window_unmap(struct virtio_ism *ism)
{
	struct ism_window *window = ism->window;

	memunmap(ism->doorbell);
	if (ism_range_held(window->addr, ism->config.window_size)) {
		/*
		 * References to these struct pages will still be dropped. The
		 * pages and the memory region stay for good.
		 */
		dev_err(&ism->vdev->dev,
			"spliced pages are still in use, leaving the window mapped\n");
		return;
	}
	memunmap_pages(&window->pgmap);
	release_mem_region(window->start, window->len);
	kfree(window);
}

/* Areas: positions of DMBs in the window */

static u32 ism_area_chunks(struct virtio_ism *ism, u32 len)
{
	return max(roundup_pow_of_two(len), ism->config.chunk_size) /
	       ism->config.chunk_size;
}

/**
 * ism_area_claim() - validate an area reported by the device and mark it used
 * @ism: the device
 * @area: position and size of the DMB according to the device
 * @chunk: returns the first chunk of the DMB
 * @len: returns the length of the DMB
 *
 * Context: map_lock held
 * Return: 0 on success
 */
int ism_area_claim(struct virtio_ism *ism, const struct virtio_ism_area *area,
		   u32 *chunk, u32 *len)
{
	const struct ism_config *config = &ism->config;
	u64 offset = le64_to_cpu(area->offset);
	u64 size = le64_to_cpu(area->size);
	u32 chunks;

	lockdep_assert_held(&ism->map_lock);

	if (!size || size > config->max_dmb_size ||
	    offset >= config->window_size ||
	    size > config->window_size - offset)
		goto bad;
	chunks = ism_area_chunks(ism, size);
	*chunk = offset / config->chunk_size;
	*len = size;
	if (!IS_ALIGNED(offset, (u64)chunks * config->chunk_size) ||
	    chunks > config->chunks - *chunk)
		goto bad;
	if (find_next_bit(ism->chunks_used, *chunk + chunks, *chunk) <
	    *chunk + chunks)
		goto bad;

	bitmap_set(ism->chunks_used, *chunk, chunks);
	return 0;
bad:
	dev_err_ratelimited(&ism->vdev->dev,
			    "device placed a DMB of %#llx bytes at %#llx\n",
			    size, offset);
	return -EPROTO;
}

void ism_area_release(struct virtio_ism *ism, u32 chunk, u32 len)
{
	lockdep_assert_held(&ism->map_lock);
	bitmap_clear(ism->chunks_used, chunk, ism_area_chunks(ism, len));
}

int ism_detach_token(struct virtio_ism *ism, u64 token)
{
	struct virtio_ism_detach command = { .token = cpu_to_le64(token) };

	return ism_control(ism, VIRTIO_ISM_CTRL_DETACH, 0,
			   &command, sizeof(command), NULL, 0);
}

/* Peers, to report them all as gone if the device breaks */

static struct ism_peer *ism_peer_get(struct virtio_ism *ism, const uuid_t *gid)
{
	struct ism_peer *peer;

	list_for_each_entry(peer, &ism->peers, list) {
		if (uuid_equal(&peer->gid, gid)) {
			peer->dmbs++;
			return peer;
		}
	}
	peer = kzalloc_obj(*peer);
	if (!peer)
		return NULL;
	uuid_copy(&peer->gid, gid);
	peer->dmbs = 1;
	list_add(&peer->list, &ism->peers);
	return peer;
}

static void ism_peer_put(struct ism_peer *peer)
{
	if (--peer->dmbs)
		return;
	list_del(&peer->list);
	kfree(peer);
}

void ism_peers_gone(struct virtio_ism *ism)
{
	struct dibs_event event = {
		.type = DIBS_DEV_EVENT,
		.subtype = DIBS_DEV_ERR_STATE,
	};
	struct ism_peer *peer;

	mutex_lock(&ism->map_lock);
	list_for_each_entry(peer, &ism->peers, list) {
		uuid_copy(&event.gid, &peer->gid);
		event.time = ktime_get_real_ns();
		ism_report_event(ism, &event);
	}
	mutex_unlock(&ism->map_lock);
}

/* Own DMBs */

int ism_dmb_register(struct virtio_ism *ism, struct dibs_dmb *dmb)
{
	struct virtio_ism_alloc_for_peer command = {
		.size = cpu_to_le64(dmb->dmb_len),
	};
	struct virtio_ism_alloc_reply reply;
	struct ism_dmb *own;
	int ret;

	if (!dmb->dmb_len || dmb->dmb_len > ism->config.max_dmb_size)
		return -EINVAL;
	own = kzalloc_obj(*own);
	if (!own)
		return -ENOMEM;
	INIT_LIST_HEAD(&own->deferred);

	mutex_lock(&ism->map_lock);
	/*
	 * The device counts own and attached DMBs together, and a connection
	 * takes one of each. The client handles a failure to register, but not
	 * one to attach: leave room.
	 */
	if (ism->dmb_count >= max(ism->config.max_dmbs / 2, 1U)) {
		ret = -ENOSPC;
		goto free;
	}
	own->peer = ism_peer_get(ism, &dmb->rgid);
	if (!own->peer) {
		ret = -ENOMEM;
		goto free;
	}
	export_uuid(command.peer_gid, &dmb->rgid);
	ret = ism_control(ism, VIRTIO_ISM_CTRL_PEER,
			  VIRTIO_ISM_CTRL_PEER_ALLOC_FOR_PEER,
			  &command, sizeof(command), &reply, sizeof(reply));
	if (ret)
		goto put_peer;
	own->token = le64_to_cpu(reply.token);

	ret = -EPROTO;
	if (le64_to_cpu(reply.num) != 1 ||
	    le64_to_cpu(reply.area.size) != dmb->dmb_len)
		goto detach;
	ret = ism_area_claim(ism, &reply.area, &own->chunk, &own->len);
	if (ret)
		goto detach;
	own->slab = ism_slab_get(ism, own->token, own->chunk);
	if (IS_ERR(own->slab)) {
		ret = PTR_ERR(own->slab);
		goto release;
	}
	ret = xa_err(xa_store(&ism->dmbs, own->chunk, own, GFP_KERNEL));
	if (ret)
		goto put_slab;
	ism_bell_add(ism, &own->bell, own->slab, own->chunk);
	ism->dmb_count++;
	mutex_unlock(&ism->map_lock);

	dmb->dmb_tok = own->token;
	dmb->idx = own->chunk;
	dmb->cpu_addr = ism_chunk_addr(ism, own->chunk);
	dmb->dma_addr = ISM_DMA_ADDR_NONE;
	return 0;

put_slab:
	ism_slab_put(ism, own->slab);
release:
	ism_area_release(ism, own->chunk, own->len);
detach:
	ism_detach_token(ism, own->token);
put_peer:
	ism_peer_put(own->peer);
free:
	mutex_unlock(&ism->map_lock);
	kfree(own);
	return ret;
}

static int ism_dmb_detach(struct virtio_ism *ism, struct ism_dmb *own)
{
	int ret;

	lockdep_assert_held(&ism->map_lock);

	ism->dmb_count--;
	ism_slab_put(ism, own->slab);
	ret = ism_detach_token(ism, own->token);
	ism_area_release(ism, own->chunk, own->len);
	ism_peer_put(own->peer);
	kfree(own);
	return ret;
}

static bool ism_dmb_held(struct virtio_ism *ism, const struct ism_dmb *own)
{
	return ism_range_held(ism_chunk_addr(ism, own->chunk), own->len);
}

static void ism_deferred_work(struct work_struct *work)
{
	struct virtio_ism *ism = container_of(to_delayed_work(work),
					      struct virtio_ism, deferred_work);
	struct ism_dmb *own, *next;

	mutex_lock(&ism->map_lock);
	list_for_each_entry_safe(own, next, &ism->deferred, deferred) {
		if (ism_dmb_held(ism, own))
			continue;
		list_del(&own->deferred);
		ism_dmb_detach(ism, own);
	}
	if (!list_empty(&ism->deferred))
		queue_delayed_work(ism->wq, &ism->deferred_work,
				   ISM_DEFERRED_RETRY);
	mutex_unlock(&ism->map_lock);
}

int ism_dmb_unregister(struct virtio_ism *ism, struct dibs_dmb *dmb)
{
	struct ism_dmb *own;
	int ret = 0;

	mutex_lock(&ism->map_lock);
	own = xa_load(&ism->dmbs, dmb->idx);
	if (!own || own->token != dmb->dmb_tok) {
		mutex_unlock(&ism->map_lock);
		return -EINVAL;
	}
	xa_erase(&ism->dmbs, dmb->idx);
	ism_bell_del(ism, &own->bell);
	if (ism_dmb_held(ism, own)) {
		ism_count(ism, ISM_DETACHES_DEFERRED);
		list_add_tail(&own->deferred, &ism->deferred);
		queue_delayed_work(ism->wq, &ism->deferred_work,
				   ISM_DEFERRED_RETRY);
	} else {
		ret = ism_dmb_detach(ism, own);
	}
	mutex_unlock(&ism->map_lock);
	return ret;
}

void ism_dmb_usage(struct virtio_ism *ism, struct ism_dmb_usage *usage)
{
	mutex_lock(&ism->map_lock);
	usage->chunks = bitmap_weight(ism->chunks_used, ism->config.chunks);
	usage->peers = list_count_nodes(&ism->peers);
	usage->deferred = list_count_nodes(&ism->deferred);
	mutex_unlock(&ism->map_lock);
}

int ism_dmb_init(struct virtio_ism *ism)
{
	mutex_init(&ism->map_lock);
	xa_init(&ism->dmbs);
	INIT_LIST_HEAD(&ism->peers);
	INIT_LIST_HEAD(&ism->deferred);
	INIT_DELAYED_WORK(&ism->deferred_work, ism_deferred_work);
	ism->chunks_used = bitmap_zalloc(ism->config.chunks, GFP_KERNEL);
	return ism->chunks_used ? 0 : -ENOMEM;
}

static bool ism_deferred_empty(struct virtio_ism *ism)
{
	bool empty;

	mutex_lock(&ism->map_lock);
	empty = list_empty(&ism->deferred);
	mutex_unlock(&ism->map_lock);
	return empty;
}

/* Before the reset: wait for deferred DMBs to be released, up to a limit. */
void ism_dmb_drain(struct virtio_ism *ism)
{
	unsigned long end = jiffies + ISM_DEFERRED_PATIENCE;

	while (!ism_deferred_empty(ism) && time_before(jiffies, end) &&
	       !ism_is_broken(ism)) {
		mod_delayed_work(ism->wq, &ism->deferred_work, 0);
		flush_delayed_work(&ism->deferred_work);
		schedule_timeout_uninterruptible(ISM_DEFERRED_RETRY);
	}
	cancel_delayed_work_sync(&ism->deferred_work);
}

/* After the reset, which invalidated every token */
void ism_dmb_free(struct virtio_ism *ism)
{
	struct ism_dmb *own, *next;
	unsigned long index;

	list_for_each_entry_safe(own, next, &ism->deferred, deferred) {
		ism_peer_put(own->peer);
		kfree(own);
	}
	xa_for_each(&ism->dmbs, index, own) {
		ism_peer_put(own->peer);
		kfree(own);
	}
	xa_destroy(&ism->dmbs);
	bitmap_free(ism->chunks_used);
}
