// The `openai` package: a stream, an embedding, a refusal. BASE, KEY ("" is none), MODEL, OTHER.
import OpenAI from "openai";

const { BASE, KEY, MODEL, OTHER } = process.env;
const client = new OpenAI({ baseURL: `${BASE}/v1`, apiKey: KEY || "any" });
const messages = [{ role: "user", content: "Grüße, 世界 🦙 \u2028" }];

let parts = 0;
let text = "";
for await (const part of await client.chat.completions.create({ model: MODEL, messages, stream: true })) {
  parts += 1;
  text += part.choices[0]?.delta?.content ?? "";
}
const { data } = await client.embeddings.create({ model: MODEL, input: ["one", "two"] });
const refused = await client.chat.completions.create({ model: OTHER, messages }).then(
  () => null,
  (error) => ({ status: error.status, message: error.message }),
);
console.log(JSON.stringify({ parts, text, embeddings: data.length, refused }));
