/*
 * Programs with a bug each, on two queue pairs of one device:
 *
 *	seeded_bugs early-doorbell	writes WQEs itself; the last has its doorbell before it is in memory
 *	seeded_bugs key-under-read	destroys the memory key of a read that is not answered yet
 *
 * Prints the number of the requester, a key and the status of each completion as JSON.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <endian.h>
#include <infiniband/mlx5dv.h>
#include <infiniband/verbs.h>

#define LENGTH 4096
#define MESSAGES 5
/* RoCE v2 with the IPv4 address: behind both versions with the link-local one, and RoCE v1 with the same address. */
#define GID_INDEX 3
#define PORT 1
#define ACCESS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ)

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
/* Requester and responder. */
static struct ibv_qp *qp, *responder;
/* Source and destination of all messages. */
static struct ibv_mr *from, *to;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void check(int failed, const char *what)
{
	if (failed)
		die(what);
}

static struct ibv_mr *region(void)
{
	void *memory = aligned_alloc(LENGTH, LENGTH);
	struct ibv_mr *mr;

	if (!memory)
		die("aligned_alloc");
	memset(memory, 0x5a, LENGTH);
	mr = ibv_reg_mr(pd, memory, LENGTH, ACCESS);
	check(!mr, "ibv_reg_mr");
	return mr;
}

static void to_init(struct ibv_qp *pair)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = PORT,
		.qp_access_flags = ACCESS,
	};

	check(ibv_modify_qp(pair, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
	      "modify to INIT");
}

static void to_rtr(struct ibv_qp *pair, const struct ibv_qp *peer)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_1024,
		.dest_qp_num = peer->qp_num,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 12,
		.ah_attr = {
			.is_global = 1,
			.port_num = PORT,
			.grh = { .sgid_index = GID_INDEX, .hop_limit = 64 },
		},
	};

	check(ibv_query_gid(context, PORT, GID_INDEX, &attr.ah_attr.grh.dgid), "ibv_query_gid");
	check(ibv_modify_qp(pair, &attr,
			    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
	      "modify to RTR");
}

static void to_rts(struct ibv_qp *pair)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS,
		.timeout = 16,
		.retry_cnt = 7,
		.rnr_retry = 7,
		.max_rd_atomic = 1,
	};

	check(ibv_modify_qp(pair, &attr,
			    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				    IBV_QP_MAX_QP_RD_ATOMIC),
	      "modify to RTS");
}

static void open_device(void)
{
	struct ibv_device **devices = ibv_get_device_list(NULL);
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 1,
		.cap = { .max_send_wr = 16, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1 },
	};

	check(!devices || !devices[0], "ibv_get_device_list");
	context = ibv_open_device(devices[0]);
	check(!context, "ibv_open_device");
	pd = ibv_alloc_pd(context);
	check(!pd, "ibv_alloc_pd");
	cq = ibv_create_cq(context, 16, NULL, NULL, 0);
	check(!cq, "ibv_create_cq");
	attr.send_cq = attr.recv_cq = cq;
	qp = ibv_create_qp(pd, &attr);
	responder = ibv_create_qp(pd, &attr);
	check(!qp || !responder, "ibv_create_qp");
	from = region();
	to = region();
	to_init(responder);
	to_init(qp);
	to_rtr(qp, responder);
	to_rts(qp);
}

static int completion(void)
{
	struct ibv_wc wc;
	int count;

	while (!(count = ibv_poll_cq(cq, 1, &wc)))
		;
	check(count < 0, "ibv_poll_cq");
	return wc.status;
}

/* An RDMA write of all of `from`, as the ring has it. */
struct wqe {
	struct mlx5_wqe_ctrl_seg ctrl;
	struct mlx5_wqe_raddr_seg remote;
	struct mlx5_wqe_data_seg data;
	uint8_t pad[16];
};

static struct wqe rdma_write(uint16_t index)
{
	struct wqe wqe = {
		.remote = { .raddr = htobe64((uintptr_t)to->addr), .rkey = htobe32(to->rkey) },
	};

	mlx5dv_set_ctrl_seg(&wqe.ctrl, index, MLX5_OPCODE_RDMA_WRITE, 0, qp->qp_num, MLX5_WQE_CTRL_CQ_UPDATE, 3, 0, 0);
	mlx5dv_set_data_seg(&wqe.data, LENGTH, from->lkey, (uintptr_t)from->addr);
	return wqe;
}

static void early_doorbell(void)
{
	struct mlx5dv_qp direct = {};
	struct mlx5dv_obj object = { .qp = { .in = qp, .out = &direct } };
	uint32_t offset = 0;
	uint16_t index;

	to_rtr(responder, qp);
	check(mlx5dv_init_obj(&object, MLX5DV_OBJ_QP), "mlx5dv_init_obj");
	printf("{\"qpn\": %u, \"statuses\": [", qp->qp_num);
	for (index = 0; index < MESSAGES; index++) {
		struct wqe *place = (struct wqe *)direct.sq.buf + index % direct.sq.wqe_cnt;
		struct wqe wqe = rdma_write(index);
		int early = index == MESSAGES - 1;
		uint64_t head;

		memcpy(&head, &wqe, sizeof(head));
		if (!early)
			*place = wqe;
		atomic_thread_fence(memory_order_seq_cst);
		direct.dbrec[MLX5_SND_DBR] = htobe32((uint16_t)(index + 1));
		atomic_thread_fence(memory_order_seq_cst);
		*(volatile uint64_t *)((char *)direct.bf.reg + offset) = head;
		offset ^= direct.bf.size;
		if (early) {
			usleep(100000);
			*place = wqe;
		}
		printf("%s%d", index ? ", " : "", completion());
	}
	printf("]}\n");
}

static void key_under_read(void)
{
	struct ibv_sge sge = { .addr = (uintptr_t)to->addr, .length = LENGTH, .lkey = to->lkey };
	struct ibv_send_wr wr = {
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_RDMA_READ,
		.wr.rdma = { .remote_addr = (uintptr_t)from->addr, .rkey = from->rkey },
	};
	struct ibv_send_wr *bad;
	uint32_t key = to->lkey;

	check(ibv_post_send(qp, &wr, &bad), "ibv_post_send");
	check(ibv_dereg_mr(to), "ibv_dereg_mr");
	/* Answers the request when it is repeated. */
	to_rtr(responder, qp);
	printf("{\"qpn\": %u, \"key\": %u, \"statuses\": [%d]}\n", qp->qp_num, key, completion());
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	open_device();
	if (!strcmp(argv[1], "early-doorbell"))
		early_doorbell();
	else if (!strcmp(argv[1], "key-under-read"))
		key_under_read();
	else
		return 2;
	return 0;
}
