// The SDK segmind-npm draws with one of its classes; base64, since it hands bytes on as text.
// node segmind-npm.cjs API_KEY CLASS [PICTURE]
const segmind = require('segmind-npm');

const [key, model, image] = process.argv.slice(2);
const asked = { prompt: 'a cat', img_width: 512, img_height: 512, prior_steps: 2, strength: 0.3, base64: true };

(async function () {
  try {
    const answer = await new segmind[model](key).generate({ ...asked, ...(image ? { image } : {}) });
    console.log(JSON.stringify({ status: answer.status, picture: answer.data.image }));
  } catch (refused) {
    console.log(JSON.stringify({ status: refused.response.status, error: refused.response.data.error }));
  }
})();
