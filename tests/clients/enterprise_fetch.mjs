// The documentation's way of calling text2img: fetch with a Headers object, the answer read as text.
// node enterprise_fetch.mjs HOST API_KEY
const [host, key] = process.argv.slice(2);

const myHeaders = new Headers();
myHeaders.append('Content-Type', 'application/json');

const raw = JSON.stringify({
  key,
  model_id: 'stable-diffusion-v1-5',
  prompt: 'a portrait of a woman, blue eyes, ((cinematic lighting))',
  negative_prompt: 'painting, extra fingers',
  width: '256',
  height: '256',
  samples: '2',
  num_inference_steps: '2',
  safety_checker: 'no',
  enhance_prompt: 'yes',
  seed: null,
  guidance_scale: 7.5,
  scheduler: 'UniPCMultistepScheduler',
  webhook: null,
  track_id: null,
});

const requestOptions = { method: 'POST', headers: myHeaders, body: raw, redirect: 'follow' };

const result = await fetch(`${host}/api/v1/enterprise/text2img`, requestOptions).then((response) => response.text());
const answer = JSON.parse(result);
const pictures = await Promise.all(
  (answer.output ?? []).map(async (url) => Buffer.from(await (await fetch(url)).arrayBuffer()).toString('base64')),
);
console.log(JSON.stringify({ answer, pictures }));
