// The SDK modelslab draws from words and from a picture, in real time, and fetches; what it was answered.
// node modelslab.cjs API_KEY ENTERPRISE MODEL
const { Client, Community, Realtime } = require('modelslab');

const [key, enterprise, model_id] = process.argv.slice(2);
const client = new Client(key);
const community = new Community(client.key, JSON.parse(enterprise));
const realtime = new Realtime(client.key, JSON.parse(enterprise));
const small = { key: client.key, width: 256, height: 256, samples: 1, safety_checker: 'no' };
const drawing = { ...small, prompt: 'a cat', model_id, num_inference_steps: 2 };

(async function () {
  const answers = [await community.textToImage(drawing)];
  if (answers[0].status === 'success') {
    const [init_image] = answers[0].output;
    answers.push(await community.imageToImage({ ...drawing, init_image, strength: 0.5 }));
    answers.push(await realtime.textToImage({ ...small, prompt: 'a cat' }));
    answers.push(await community.fetch(String(answers[0].id)));
  }
  console.log(JSON.stringify(answers));
})();
