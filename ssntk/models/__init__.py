from ssntk.models import normal_forms as normal_forms
