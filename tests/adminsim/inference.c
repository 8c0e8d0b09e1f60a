/* What a minted key is for: just enough that it can be used, and be dead. */
#include "config.h"

#include "tests/adminsim/api.h"

#include <string.h>

#define ANSWER "Hello from the double: this key works."

static json_t *model(const char *id)
{
    return json_pack("{ss, ss, sI, ss}", "id", id, "object", "model", "created",
                     (json_int_t)1715367049, "owned_by", "system");
}

static void model_list(struct request *q, struct reply *r)
{
    (void)q;
    r->status = 200;
    r->json = json_pack("{ss, s[oo]}", "object", "list", "data",
                        model("gpt-4o-mini"), model("gpt-5-mini"));
}

static void model_get(struct request *q, struct reply *r)
{
    r->status = 200;
    r->json = model(q->ids[0]);
}

static const char *model_of(const struct request *q, struct reply *r)
{
    const char *m = json_string_value(json_object_get(q->json, "model"));
    if (!m)
        reply_error(r, 400, "invalid_request_error",
                    "missing_required_parameter", "model",
                    "Missing required parameter: 'model'.");
    return m;
}

static void chat(struct request *q, struct reply *r)
{
    const char *m = model_of(q, r);
    if (!m)
        return;
    r->status = 200;
    r->json =
        json_pack("{ss, ss, sI, ss, s[{si, s{ss, ss, sn}, ss}], s{si, si, si}}",
                  "id", "chatcmpl-adminsim", "object", "chat.completion",
                  "created", (json_int_t)world_now_s(), "model", m, "choices",
                  "index", 0, "message", "role", "assistant", "content", ANSWER,
                  "refusal", "finish_reason", "stop", "usage", "prompt_tokens",
                  8, "completion_tokens", 8, "total_tokens", 16);
}

static void response(struct request *q, struct reply *r)
{
    const char *m = model_of(q, r);
    if (!m)
        return;
    json_t *content = json_pack("{ss, ss, s[]}", "type", "output_text", "text",
                                ANSWER, "annotations");
    r->status = 200;
    r->json = json_pack(
        "{ss, ss, sI, ss, ss, sn, s[{ss, ss, ss, ss, s[o]}], s{si, si, si}}",
        "id", "resp_adminsim", "object", "response", "created_at",
        (json_int_t)world_now_s(), "status", "completed", "model", m, "error",
        "output", "type", "message", "id", "msg_adminsim", "status",
        "completed", "role", "assistant", "content", content, "usage",
        "input_tokens", 8, "output_tokens", 8, "total_tokens", 16);
}

const struct route inference_routes[] = {
    {"GET", "models", false, model_list},
    {"GET", "models/{}", false, model_get},
    {"POST", "chat/completions", false, chat},
    {"POST", "responses", false, response},
    {0}};
